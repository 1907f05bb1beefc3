"""A glance at models directories lists what the Library lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.gguf_files import CHATML, gguf_bytes
from fakes.stores import put_model
from puna.errors import StoreError
from puna.model.digest import Digest
from puna.store.glance import glance
from puna.store.library import Library

WEIGHTS = gguf_bytes(chat_template=CHATML)


def test_it_lists_what_the_library_lists(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    put_model(own, "good/latest", WEIGHTS, {"system": b"Be brief."})
    put_model(own, "someone/good/v2", WEIGHTS)
    put_model(own, "cut/latest", WEIGHTS[:20])
    lost = gguf_bytes(architecture="qwen2")
    put_model(own, "lost/latest", lost)
    put_model(own, "broken/latest", WEIGHTS).write_text("{")
    put_model(other, "GOOD/latest", gguf_bytes(architecture="phi3"))
    put_model(other, "theirs/latest", gguf_bytes(architecture="gemma3"))
    Library.open(own).blobs.remove(Digest.of(lost))
    library = Library.open(own, read_only=[other])
    listed, left_out = glance(own, [other])
    expected = [(model.name, model.digest, model.size, model.modified) for model in library.models()]
    assert [(model.name, model.digest, model.size, model.modified) for model in listed] == expected
    assert len(expected) == 3
    assert {model.name.model for model in left_out} == {"cut", "lost", "broken"}
    assert all(model.reason for model in left_out)


def test_directories_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert glance(tmp_path / "nothing") == ([], [])
    with pytest.raises(StoreError, match="is not a directory"):
        glance(file)
    with pytest.raises(StoreError, match="read-only"):
        glance(tmp_path, [tmp_path / "nothing"])
