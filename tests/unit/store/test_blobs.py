import os
from pathlib import Path

import pytest

from fakes.stores import put_blob
from puna.errors import DigestMismatch, ModelDamaged, StoreError
from puna.model.digest import Digest
from puna.store.blobs import Blobs

DATA = b"some bytes" * 1000
DIGEST = Digest.of(DATA)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def files(blobs: Blobs) -> list[str]:
    return sorted(path.name for path in blobs.directory.iterdir()) if blobs.directory.exists() else []


def test_written_in_pieces(blobs: Blobs) -> None:
    with blobs.writer() as writer:
        for at in range(0, len(DATA), 999):
            writer.write(DATA[at : at + 999])
            assert not blobs.has(DIGEST)
    assert (writer.digest, writer.size) == (DIGEST, len(DATA))
    assert blobs.path(DIGEST).read_bytes() == DATA
    assert files(blobs) == [DIGEST.filename]
    assert blobs.path(DIGEST).stat().st_mode & 0o777 == 0o644


def test_wrong_digest_leaves_nothing(blobs: Blobs) -> None:
    with pytest.raises(DigestMismatch, match=DIGEST.hex), blobs.writer(DIGEST) as writer:
        writer.write(DATA[1:])
    assert files(blobs) == []


def test_error_leaves_nothing(blobs: Blobs) -> None:
    def interrupted() -> None:
        with blobs.writer() as writer:
            writer.write(DATA)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert files(blobs) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(blobs: Blobs) -> None:
    def fill() -> None:
        with blobs.writer() as writer, Path("/dev/full").open("wb") as full:
            os.dup2(full.fileno(), writer._file.fileno())
            writer.write(DATA)
            writer.flush()

    with pytest.raises(StoreError, match="no space left") as caught:
        fill()
    assert caught.value.code == "disk_full"
    assert files(blobs) == []


def test_a_damaged_blob_is_replaced(blobs: Blobs) -> None:
    blobs.add_bytes(DATA)
    blobs.path(DIGEST).write_bytes(DATA[:-1] + b"x")
    assert not blobs.intact(DIGEST, len(DATA))
    blobs.add_bytes(DATA)
    assert blobs.intact(DIGEST, len(DATA))
    assert not blobs.intact(DIGEST, len(DATA) + 1)
    assert not blobs.intact(Digest("00" * 32), 0)


def test_both_names_and_other_stores(tmp_path: Path) -> None:
    put_blob(tmp_path / "other", DATA, colon=True)
    blobs = Blobs(tmp_path / "blobs", [tmp_path / "other" / "blobs"])
    assert blobs.path(DIGEST) == tmp_path / "other" / "blobs" / str(DIGEST)
    blobs.remove(DIGEST)
    assert blobs.has(DIGEST), "another store is only read"
    blobs.add_bytes(DATA)
    assert blobs.path(DIGEST).parent == blobs.directory


def test_file_taken_without_a_copy(tmp_path: Path, blobs: Blobs) -> None:
    source = tmp_path / "x.gguf"
    source.write_bytes(DATA)
    mode = source.stat().st_mode
    seen: list[int] = []
    assert blobs.add_file(source, seen.append) == DIGEST
    assert seen[-1] == len(DATA)
    assert blobs.path(DIGEST).read_bytes() == DATA
    assert source.stat().st_mode == mode
    linked = blobs.path(DIGEST).stat().st_ino == source.stat().st_ino
    cloned = source.stat().st_nlink == 1
    assert linked or cloned
    assert files(blobs) == [DIGEST.filename]


def test_file_through_a_link_and_not_as_expected(tmp_path: Path, blobs: Blobs) -> None:
    source = tmp_path / "x.gguf"
    source.write_bytes(DATA)
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(DigestMismatch):
        blobs.add_file(tmp_path / "link", expected=Digest("00" * 32))
    assert files(blobs) == []
    assert blobs.add_file(tmp_path / "link", expected=DIGEST) == DIGEST
    assert not blobs.path(DIGEST).is_symlink()


def test_file_that_changes_meanwhile(tmp_path: Path, blobs: Blobs) -> None:
    source = tmp_path / "x.gguf"
    source.write_bytes(DATA)
    with pytest.raises(StoreError, match="changed"):
        blobs.add_file(source, lambda _: source.write_bytes(DATA + b"more") and None)
    assert files(blobs) == []


def test_reading_is_bounded(blobs: Blobs) -> None:
    blobs.add_bytes(DATA)
    assert blobs.read(DIGEST, limit=len(DATA)) == DATA
    with pytest.raises(StoreError, match="larger"):
        blobs.read(DIGEST, limit=len(DATA) - 1)
    with pytest.raises(ModelDamaged, match="missing"):
        blobs.read(Digest("00" * 32), limit=1)
