"""What is known of a model's memory before it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("kind", "more", "places"),
    [
        ("pixtral", {}, 1024),
        ("pixtral", {"clip.vision.spatial_merge_size": 2}, 4096),
        ("qwen2.5vl_merger", {}, 4096 * 4),
        ("gemma4v", {}, 280 * 9),
        ("qwen3vl_merger", {"clip.vision.image_max_pixels": 1_048_576}, 1_048_576 // PATCH**2),
    ],
)
def test_a_projector_that_sees_pictures_in_their_size_is_reckoned_with_the_largest(
    tmp_path: Path, kind: str, more: dict[str, int], places: int
) -> None:
    """Whatever size its header names, which is that of what it was trained on."""
    metadata = {
        "clip.vision.projector_type": kind, "clip.vision.image_size": TILE, "clip.vision.patch_size": PATCH,
        "clip.vision.embedding_length": WIDTH, "clip.vision.feed_forward_length": HIDDEN, **more,
    }  # fmt: skip
    header = read_header(write_gguf(tmp_path / "eye.gguf", architecture="clip", metadata=metadata))
    assert encoded(header) == encoding(places, WIDTH, HIDDEN)


def test_where_a_header_tells_nothing_nothing_is_reckoned(tmp_path: Path) -> None:
    assert encoded(read_header(write_gguf(tmp_path / "bare.gguf", architecture="clip"))) == 0
