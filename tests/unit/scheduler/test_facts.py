"""What is known of a model's memory before it is loaded."""

from __future__ import annotations

from pathlib import Path

from fakes.gguf_files import write_gguf
from fakes.projectors import HIDDEN, PATCH, TILE, WIDTH, write_projector
from puna.engine.memory import encoding, projector_kinds
from puna.model.gguf import read_header
from puna.scheduler.facts import SOUND, encoded


def test_a_projector_takes_memory_for_what_it_sees_or_hears(tmp_path: Path) -> None:
    eye = write_projector(tmp_path / "eye.gguf")
    ear = write_projector(tmp_path / "ear.gguf", sees=None, hears=True)
    assert encoded(read_header(eye)) == encoding((TILE // PATCH) ** 2, WIDTH, HIDDEN)
    assert encoded(read_header(ear)) == encoding(SOUND, WIDTH, HIDDEN)
    assert (projector_kinds(read_header(eye)), projector_kinds(read_header(ear))) == ({"idefics3"}, {"ultravox"})


def test_where_a_header_tells_nothing_nothing_is_reckoned(tmp_path: Path) -> None:
    assert encoded(read_header(write_gguf(tmp_path / "bare.gguf", architecture="clip"))) == 0
