"""Files that wait for somebody, or have no end: refused before they are read, by everything that is given a path."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.gguf_files import gguf_bytes
from puna.cli.create import check_kind, read_modelfile
from puna.cli.lock import _read as read_lock
from puna.cli.media import attach
from puna.cli.upload import file_digest
from puna.errors import InvalidRequest, ModelDamaged, ModelFileError, StoreError
from puna.model.digest import Digest
from puna.model.gguf import read_header
from puna.plainfile import NotPlain, open_plain, read_plain
from puna.sources.hub.access import _token
from puna.store.blobs import hash_file
from puna.store.library import Library

KMSG = Path("/proc/kmsg")
"""A regular file, as the system has it, that gives bytes when the kernel next says something."""


def pipe(directory: Path) -> Path:
    path = directory / "pipe.png"
    os.mkfifo(path)
    return path


def terabyte(directory: Path) -> Path:
    path = directory / "holes.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    return path


def kernel(directory: Path) -> Path:
    if not (KMSG.exists() and os.access(KMSG, os.R_OK)):
        pytest.skip("this system keeps /proc/kmsg to itself")
    path = directory / "kernel.png"
    path.symlink_to(KMSG)
    return path


def device(directory: Path) -> Path:
    path = directory / "zeros.png"
    path.symlink_to("/dev/zero")
    return path


KINDS: dict[str, Callable[[Path], Path]] = {"pipe": pipe, "terabyte": terabyte, "kernel": kernel, "device": device}
READERS: dict[str, Callable[[Path], object]] = {
    "read": lambda path: read_plain(path, 1000),
    "header": read_header,
    "Modelfile": read_modelfile,
    "FROM": check_kind,
    "lock file": read_lock,
}


@pytest.fixture(params=KINDS)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return KINDS[request.param](tmp_path)


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_plain_file_is_refused_and_not_waited_for(odd: Path, reader: str) -> None:
    with pytest.raises((NotPlain, BlockingIOError, InvalidRequest, ModelFileError, PermissionError)):
        READERS[reader](odd)


def test_a_picture_in_a_prompt_is_looked_at_first(odd: Path) -> None:
    prompt = f"What is {odd} ?"
    if not odd.is_file():
        assert attach(prompt, ["vision"]).text == prompt  # no file in the sense of a prompt
        return
    with pytest.raises(InvalidRequest, match=odd.name):
        attach(prompt, ["vision"])


def test_a_token_of_the_hub_is_no_pipe(odd: Path) -> None:
    assert _token({"HF_TOKEN_PATH": str(odd)}, None) is None


def test_what_is_hashed_has_an_end(odd: Path) -> None:
    """Those that have one, of a terabyte, are left when nobody waits any more."""

    class Left(Exception):
        pass

    def leave(done: int) -> None:
        raise Left

    for hashed in (hash_file, file_digest):
        if odd.stat().st_size or not stat.S_ISREG(odd.stat().st_mode):
            with pytest.raises((NotPlain, Left)):
                hashed(odd, leave)
        else:
            assert str(hashed(odd, leave)) == str(Digest.of(b""))


def test_a_store_with_a_pipe_in_it_does_not_wait(tmp_path: Path) -> None:
    library = Library.open(tmp_path / "models")
    digest = Digest.of(b"settings")
    library.blobs.directory.mkdir(parents=True)
    os.mkfifo(library.blobs.directory / digest.filename)
    with pytest.raises(ModelDamaged, match="missing"):
        library.blobs.read(digest, limit=100)
    with pytest.raises(StoreError):
        library.blobs.add_file(pipe(tmp_path))


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data := gguf_bytes())
    assert read_plain(path, len(data)) == data
    with open_plain(path) as file:
        assert file.read(4) == b"GGUF"
    with pytest.raises(NotPlain, match="larger than the 10 bytes"):
        read_plain(path, 10)
    assert hash_file(path) == Digest.of(data)
