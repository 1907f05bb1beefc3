"""A blob is hashed once, and again only after it changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from puna.errors import ModelFileError
from puna.model.digest import Digest
from puna.store import verified
from puna.store.verified import Verified


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / Digest.of(b"weights").filename
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed, by the real function."""
    seen: list[Path] = []
    real = verified.hash_file

    def hash_file(path: Path) -> Digest:
        seen.append(path)
        return real(path)

    monkeypatch.setattr(verified, "hash_file", hash_file)
    return seen


def test_an_intact_blob_is_hashed_once_over_two_lives(blob: Path, tmp_path: Path, hashed: list[Path]) -> None:
    for _ in range(2):
        notes = Verified(tmp_path / "notes.json")
        notes.check(blob)
        notes.check(blob)
    assert hashed == [blob]


def test_a_blob_that_changed_is_refused_each_time(blob: Path, tmp_path: Path) -> None:
    notes = Verified(tmp_path / "notes.json")
    notes.check(blob)
    blob.write_bytes(b"weightz")
    for _ in range(2):
        with pytest.raises(ModelFileError, match="is damaged"):
            notes.check(blob)
    blob.write_bytes(b"weights")
    notes.check(blob)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": 1}', b"\xff"])
def test_damaged_notes_count_as_none(blob: Path, tmp_path: Path, hashed: list[Path], content: bytes) -> None:
    (tmp_path / "notes.json").write_bytes(content)
    Verified(tmp_path / "notes.json").check(blob)
    assert hashed == [blob]
