"""Files that wait for somebody, or have no end: refused before they are read, by everything that is given a path."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from fakes.gguf_files import gguf_bytes
from puna.cli.create import read_modelfile
from puna.cli.lock import _read as read_lock
from puna.cli.media import attach
from puna.cli.progress import Lines
from puna.cli.upload import check_kind, digest_of, file_digest
from puna.errors import InvalidRequest, ModelDamaged, ModelFileError, NotFound, StoreError
from puna.model.digest import Digest
from puna.model.gguf import read_header
from puna.plainfile import NotPlain, open_plain, read_plain
from puna.sources.hub.access import _token
from puna.store.blobs import hash_file
from puna.store.library import Library
from puna.types import Progress

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


def test_a_terabyte_that_nobody_wrote_is_not_read_to_its_end(tmp_path: Path) -> None:
    hollow = tmp_path / "a.gguf"
    hollow.write_bytes(b"GGUF")
    os.truncate(hollow, 1 << 40)
    with open_plain(hollow) as file:
        assert file.read(4) == b"GGUF"
    with pytest.raises(NotPlain, match="nearly all hole"):
        open_plain(hollow, whole=True)
    with pytest.raises(InvalidRequest, match="nearly all hole"):
        asyncio.run(digest_of(hollow, Lines(Console(file=io.StringIO()))))
    with pytest.raises(StoreError, match="nearly all hole"):
        Library.open(tmp_path / "models").blobs.add_file(hollow)


def test_a_link_that_leads_to_itself_is_a_fault_of_the_path(tmp_path: Path) -> None:
    link = tmp_path / "a.gguf"
    link.symlink_to(link)
    with pytest.raises(StoreError):
        Library.open(tmp_path / "models").blobs.add_file(link)
    with pytest.raises(NotFound):
        asyncio.run(digest_of(link, Lines(Console(file=io.StringIO()))))


def test_whoever_stops_waiting_for_a_digest_stops_the_reading(tmp_path: Path) -> None:
    """Ctrl-C ends the command, which waits for its threads."""
    path, told = tmp_path / "a.gguf", []
    path.write_bytes(b"GGUF" + bytes(64 << 20))

    class Shown(Lines):
        def show(self, progress: Progress) -> None:
            told.append(progress.completed)
            reading.set()
            assert left.wait(10)

    async def leave() -> None:
        task = asyncio.create_task(digest_of(path, Shown(Console(file=io.StringIO()))))
        await asyncio.to_thread(reading.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left.set()

    reading, left = threading.Event(), threading.Event()
    asyncio.run(leave())  # which waits for its threads too
    assert told == [1 << 20]
