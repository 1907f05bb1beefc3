"""A blob is trusted after its digest was seen on this disk, hashed once for it, and again only after it changed."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from puna.errors import Cancelled, ModelDamaged, StoreError
from puna.model.digest import Digest
from puna.store import blobs as blobs_module
from puna.store.blobs import SMALL, Blobs, OnBytes, stop_when
from puna.store.stamp import Stamp
from puna.store.verified import FILE_NAME, Verified

DATA = bytes(range(1, 251)) * 1000
DIGEST = Digest.of(DATA)
assert len(DATA) > SMALL


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed, by the real function."""
    seen: list[Path] = []
    real = blobs_module.hash_file

    def hash_file(path: Path, on_bytes: OnBytes | None = None) -> Digest:
        seen.append(path)
        return real(path, on_bytes)

    monkeypatch.setattr(blobs_module, "hash_file", hash_file)
    return seen


def put(blobs: Blobs, data: bytes = DATA, name: Digest = DIGEST) -> Path:
    """As another program would have left it."""
    path = blobs.directory / name.filename
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_what_others_left_is_hashed_once_over_two_lives(tmp_path: Path, hashed: list[Path]) -> None:
    path = put(Blobs(tmp_path / "blobs"))
    for _ in range(2):
        blobs = Blobs(tmp_path / "blobs")
        assert blobs.intact(DIGEST, len(DATA))
        assert blobs.intact(DIGEST)
    assert hashed == [path]


def test_what_is_written_is_never_hashed_again(tmp_path: Path, hashed: list[Path]) -> None:
    blobs = Blobs(tmp_path / "blobs")
    blobs.add_bytes(DATA)
    source = tmp_path / "source"
    source.write_bytes(DATA + b"more")
    other = blobs.add_file(source)
    assert hashed == [source]
    assert Blobs(tmp_path / "blobs").intact(DIGEST, len(DATA))
    assert Blobs(tmp_path / "blobs").intact(other, len(DATA) + 4)
    assert hashed == [source]


def test_two_processes_see_each_others_notes(tmp_path: Path, hashed: list[Path]) -> None:
    one, two = Blobs(tmp_path / "blobs"), Blobs(tmp_path / "blobs")
    assert not two.intact(DIGEST)
    put(one)
    assert one.intact(DIGEST)
    assert two.intact(DIGEST)
    assert len(hashed) == 1


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "flipped": (lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:], "changed", "not those"),
    "zeroed": (lambda data: data[:8192] + bytes(8192) + data[16384:], "zeroed", "8192 of its 250000 bytes .* 8192 on"),
    "all zeros": (lambda data: bytes(len(data)), "zeroed", "nothing but zeros"),
    "truncated": (lambda data: data[:-1], "truncated", "249999 of 250000"),
    "longer": (lambda data: data + b"x", "changed", "250001 bytes in place of 250000"),
    "empty": (lambda data: b"", "truncated", "0 of 250000"),
}


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("known", [False, True])
def test_damage_is_told_and_gone_when_it_is_mended(tmp_path: Path, case: str, known: bool) -> None:
    change, kind, words = DAMAGE[case]
    blobs = Blobs(tmp_path / "blobs")
    path = put(blobs)
    if known:
        assert blobs.intact(DIGEST)
    path.write_bytes(change(DATA))
    os.utime(path, ns=(0, 0))  # whatever this file system's clock can tell apart
    for _ in range(2):
        fault = blobs.fault(DIGEST, len(DATA))
        assert fault is not None
        assert fault.kind == kind
        assert re.search(words, fault.words)
    blobs.add_bytes(DATA)
    assert blobs.fault(DIGEST, len(DATA), anew=True) is None


def test_damage_that_left_no_trace_is_found_when_all_is_read(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    blobs.add_bytes(DATA)
    path = blobs.path(DIGEST)
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert blobs.fault(DIGEST, len(DATA)) is None
    fault = blobs.fault(DIGEST, len(DATA), anew=True)
    assert fault is not None
    assert fault.kind == "changed"
    assert blobs.fault(DIGEST, len(DATA)) is not None, "once found it is known"


def test_small_blobs_are_checked_whenever_they_are_read(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    digest = blobs.add_bytes(b"a template")
    blobs.path(digest).write_bytes(b"A template")
    with pytest.raises(ModelDamaged, match="not those that were stored.*puna verify --all --repair"):
        blobs.read(digest, limit=100)
    blobs.path(digest).unlink()
    with pytest.raises(ModelDamaged, match="missing"):
        blobs.read(digest, limit=100)


def test_a_damaged_blob_is_replaced_by_a_file_that_has_its_bytes(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    source = tmp_path / "source"
    source.write_bytes(DATA)
    put(blobs, b"x" * len(DATA))
    assert blobs.add_file(source) == DIGEST
    assert blobs.path(DIGEST).read_bytes() == DATA


@pytest.mark.parametrize("content", [b"", b"\n\n", b"x", b"a b c d\n", b"\xff 1 2 3\n", b"a 1 2\n", b"1" * 5000])
def test_damaged_notes_count_as_none(tmp_path: Path, hashed: list[Path], content: bytes) -> None:
    path = put(Blobs(tmp_path / "blobs"))
    (tmp_path / FILE_NAME).write_bytes(content)
    assert Blobs(tmp_path / "blobs").intact(DIGEST)
    assert hashed == [path]


def test_notes_of_what_is_gone_are_dropped(tmp_path: Path, hashed: list[Path]) -> None:
    notes = Verified(tmp_path / FILE_NAME)
    blobs = Blobs(tmp_path / "blobs", verified=notes)
    blobs.add_bytes(DATA)
    other = blobs.add_bytes(DATA * 2)
    blobs.tidy([DIGEST])
    lines = (tmp_path / FILE_NAME).read_text().splitlines()
    assert [line.split()[0] for line in lines] == [DIGEST.hex]
    assert notes.holds(DIGEST, Stamp.of(blobs.path(DIGEST)))
    assert Blobs(tmp_path / "blobs").intact(DIGEST)
    assert hashed == []
    assert blobs.intact(other)
    assert len(hashed) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs modes")
def test_a_store_that_cannot_be_written_is_hashed_once_a_life(tmp_path: Path, hashed: list[Path]) -> None:
    (tmp_path / FILE_NAME).mkdir()  # not even root can write into it
    put(Blobs(tmp_path / "blobs"))
    blobs = Blobs(tmp_path / "blobs")
    assert blobs.intact(DIGEST)
    assert blobs.intact(DIGEST)
    assert len(hashed) == 1


def test_several_that_ask_for_one_file_hash_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Blobs(tmp_path / "blobs")
    put(blobs)
    other = put(blobs, b"y" * len(DATA), Digest.of(b"y" * len(DATA)))
    real, entered, go = blobs_module.hash_file, threading.Event(), threading.Event()
    count = 0

    def hash_file(path: Path, on_bytes: OnBytes | None = None) -> Digest:
        nonlocal count
        if path != other:
            count += 1
            entered.set()
            assert go.wait(30)
        return real(path, on_bytes)

    monkeypatch.setattr(blobs_module, "hash_file", hash_file)
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(blobs.intact(DIGEST))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert entered.wait(30)
    # One that asks for another file does not wait for them; one that is not waited for any more ends.
    assert blobs.intact(Digest.of(b"y" * len(DATA)))
    with pytest.raises(Cancelled):
        blobs.intact(DIGEST, on_bytes=stop_when(lambda: True))
    go.set()
    for thread in threads:
        thread.join(30)
    assert (found, count) == ([True] * 4, 1)


def test_work_that_is_not_waited_for_stops_in_the_middle_of_a_file(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    put(blobs)
    with pytest.raises(Cancelled):
        blobs.intact(DIGEST, on_bytes=stop_when(lambda: True))
    assert blobs.intact(DIGEST)


def test_a_source_that_is_written_to_while_it_is_linked_is_no_blob(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    blobs = Blobs(tmp_path / "blobs")
    with pytest.raises(StoreError, match="changed"):
        blobs.add_file(source, lambda done: source.write_bytes(b"y" * len(DATA)) and None)
    assert not blobs.has(DIGEST)
