"""What is known of a model's memory before it is loaded."""

from __future__ import annotations

from pathlib import Path

from fakes.projectors import HIDDEN, PATCH, TILE, WIDTH, write_projector
from puna.engine.memory import encoding
from puna.scheduler.facts import SOUND, encoded


def test_a_projector_takes_memory_for_what_it_sees_or_hears(tmp_path: Path) -> None:
    eye = write_projector(tmp_path / "eye.gguf")
    ear = write_projector(tmp_path / "ear.gguf", sees=None, hears=True)
    assert encoded(eye) == encoding((TILE // PATCH) ** 2, WIDTH, HIDDEN)
    assert encoded(ear) == encoding(SOUND, WIDTH, HIDDEN)


def test_of_a_file_that_tells_nothing_nothing_is_reckoned(tmp_path: Path) -> None:
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF")
    assert encoded(tmp_path / "damaged.gguf") == encoded(tmp_path / "missing.gguf") == 0
