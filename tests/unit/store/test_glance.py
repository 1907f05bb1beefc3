"""A glance at models directories lists what the Library lists."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes.gguf_files import CHATML, gguf_bytes
from fakes.stores import put_model
from puna import __version__
from puna.errors import StoreError
from puna.model.digest import Digest
from puna.model.gguf import Header, read_header
from puna.model.listed import Listed
from puna.model.name import Name
from puna.store.blobs import Blobs
from puna.store.glance import glance
from puna.store.library import Library
from puna.store.manifests import Manifests

WEIGHTS = gguf_bytes(chat_template=CHATML)
EMPTY = json.dumps({"version": __version__, "models": {}, "labels": {}, "files": {}})


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
    usable = [name for name in library.names() if name.model not in {"cut", "lost", "broken"}]
    expected = [Listed.of(library.resolve(name)) for name in usable]
    assert sorted(listed, key=str) == sorted(expected, key=str)
    assert library.listed() == listed
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


def test_a_second_list_reads_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for number in range(5):
        put_model(own, f"m{number}/latest", WEIGHTS, {"system": b"%d" % number})
    put_model(other, "theirs/latest", WEIGHTS, colon=True)
    first = glance(own, [other])
    assert len(first[0]) == 6

    def read(self: Manifests, name: Name) -> bytes:
        raise AssertionError(f"{name} is read")

    with monkeypatch.context() as patched:
        patched.setattr(Manifests, "read", read)
        assert glance(own, [other]) == first
        assert Library.open(own, read_only=[other]).listed() == first[0]
    assert not (other / "listed.json").exists()


def test_a_first_list_reads_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(24):
        weights = gguf_bytes(architecture=("llama", "qwen2")[number % 2], chat_template=CHATML)
        own = {"system": b"%d" % number} if number % 3 else {}
        layers = {"template": b"{{ .Prompt }}", "license": b"MIT", "params": b'{"num_ctx": 64}', **own}
        put_model(tmp_path, f"m{number}/latest", weights, layers, config={"model_type": f"{number % 5}B"})
    read: list[object] = []

    def read_blob(self: Blobs, digest: Digest, **how: Any) -> bytes:
        read.append(digest)
        return read_small(self, digest, **how)

    def read_weights(path: Path, **how: Any) -> Header:
        read.append(path)
        return read_header(path, **how)

    read_small = Blobs.read
    with monkeypatch.context() as patched:
        patched.setattr(Blobs, "read", read_blob)
        patched.setattr("puna.model.gguf.read_header", read_weights)
        listed, left_out = glance(tmp_path)
    assert len(read) == len(set(read)) == 2 + 3 + 16 + 5
    library = Library.open(tmp_path)
    assert (sorted(listed, key=str), left_out) == (
        sorted([Listed.of(library.resolve(name)) for name in library.names()], key=str),
        [],
    )


def test_one_manifest_under_several_names(tmp_path: Path) -> None:
    """It is damaged only where another was stored of which it is a part, whichever name is looked at first."""
    put_model(tmp_path, "whole/latest", WEIGHTS, {"system": b"Be brief."})
    part = put_model(tmp_path, "part/latest", WEIGHTS)
    library = Library.open(tmp_path)
    for name in ("a", "m", "z"):
        library.copy(Name.parse("part" if name == "m" else "whole"), Name.parse(name))
        library.root.joinpath("manifests/registry.ollama.ai/library", name, "latest").write_bytes(part.read_bytes())
    listed, left_out = glance(tmp_path)
    assert {one.name.model for one in listed} == {"whole", "part", "m"}
    assert {one.name.model: "not the one that was stored" in one.reason for one in left_out} == {"a": True, "z": True}


def test_what_changed_is_read_again(tmp_path: Path) -> None:
    for number in range(3):
        put_model(tmp_path, f"m{number}/latest", WEIGHTS, {"system": b"%d" % number})
    library = Library.open(tmp_path)
    before = {listed.name.model: listed.label for listed in library.listed()}
    put_model(tmp_path, "m0/latest", gguf_bytes(architecture="qwen2"))
    library.blobs.remove(Digest.of(b"1"))  # a small blob of one
    library.delete(Name.parse("m2"))
    put_model(tmp_path, "m3/latest", WEIGHTS)
    listed, left_out = glance(tmp_path)
    after = {one.name.model: one.label for one in listed}
    assert set(after) == {"m0", "m3"}
    assert (after["m0"].family, before["m0"].family) == ("qwen2", "llama")
    assert [one.name.model for one in left_out] == ["m1"]
    assert {one.name.model: one.label for one in library.listed()} == after


def test_what_is_replaced_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what was said of the file before would be taken for what is said of this one."""
    put_model(tmp_path, "m/latest", WEIGHTS, {"system": b"Be brief."})
    system = Digest.of(b"Be brief.")
    path = tmp_path / "blobs" / system.filename

    def read_and_replace(self: Blobs, digest: Digest, **how: Any) -> bytes:
        data = read(self, digest, **how)
        if digest == system:
            path.write_bytes(b"Be curt.")
        return data

    read = Blobs.read
    with monkeypatch.context() as patched:
        patched.setattr(Blobs, "read", read_and_replace)
        assert [one.name.model for one in glance(tmp_path)[0]] == ["m"]
    listed, left_out = glance(tmp_path)
    assert listed == []
    assert [one.name.model for one in left_out] == ["m"]


def test_what_names_share_is_noted_and_asked_about_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_model(tmp_path, "m/latest", WEIGHTS, {"system": b"Be brief."})
    put_model(tmp_path, "other/latest", WEIGHTS, {"system": b"Be curt."})
    library = Library.open(tmp_path)
    for number in range(10):
        library.copy(Name.parse("m"), Name.parse(f"copy{number}"))
    first = library.listed()
    noted = json.loads((tmp_path / "listed.json").read_bytes())
    assert (len(noted["models"]), len(noted["labels"]), len(noted["files"])) == (12, 2, 4)
    asked: list[str] = []

    def stat(path: str) -> os.stat_result:
        asked.append(path)
        return Path(path).stat()

    monkeypatch.setattr("puna.store.shelf.stat", stat)
    assert glance(tmp_path) == (first, [])
    assert sorted(asked) == sorted(map(str, (tmp_path / "blobs").iterdir()))


def test_a_list_waits_for_no_more_modules_than_it_needs(tmp_path: Path) -> None:
    put_model(tmp_path, "m/latest", WEIGHTS)
    script = """
import pathlib, sys
from puna.store.glance import glance
print(len(glance(pathlib.Path(sys.argv[1]))[0]))
print(*(name for name in ("structlog", "filelock", "puna.store.library", "puna.store.reading", "puna.model.gguf")
        if name in sys.modules))
"""
    said = [
        subprocess.run([sys.executable, "-c", script, tmp_path], check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert said == ["1\npuna.store.reading puna.model.gguf\n", "1\n\n"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"models": {}}', EMPTY])
def test_a_shelf_that_is_none(tmp_path: Path, text: str) -> None:
    put_model(tmp_path, "m/latest", WEIGHTS)
    first = glance(tmp_path)
    (tmp_path / "listed.json").write_text(text)
    assert glance(tmp_path) == first


@pytest.mark.parametrize("value", [None, 7, "?", [], ["?"], {"?": 1}, [[0], ["?"]], ["?", 1, 2, 3], [[99], []]])
@pytest.mark.parametrize("part", ["models", "labels", "files", "model", "label", "file", "number"])
def test_a_shelf_that_somebody_else_wrote(tmp_path: Path, part: str, value: Any) -> None:
    """It is read anew, whatever is there, and what is written then is sound."""
    for number in range(3):
        put_model(tmp_path, f"m{number}/latest", WEIGHTS, {"system": b"%d" % number})
    first, shelf = glance(tmp_path), tmp_path / "listed.json"
    sound = shelf.read_bytes()
    known = json.loads(sound)
    name = next(iter(known["models"]))
    match part:
        case "model":
            known["models"][name] = value
        case "number":
            known["models"][name][-1] = value if value != 7 else 99
        case "label" | "file":
            known[f"{part}s"][0] = value
        case _:
            known[part] = value
    shelf.write_text(json.dumps(known))
    assert glance(tmp_path) == first
    put_model(tmp_path, "new/latest", WEIGHTS)
    assert len(glance(tmp_path)[0]) == 4
    (tmp_path / "manifests/registry.ollama.ai/library/new/latest").unlink()
    assert glance(tmp_path) == first == glance(tmp_path)
