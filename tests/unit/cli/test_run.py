"""The arguments of `run`, before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from puna.cli.ask import Ask, read_format, read_think, shared_fields
from puna.cli.files import file_name, local_path
from puna.cli.flags import WrongUsage
from puna.errors import InvalidRequest
from puna.model.name import Name


def test_piped_text_comes_before_the_words() -> None:
    assert Ask(model="m", words="Sum up", piped="A report.\n").prompt == "A report.\n Sum up"
    assert Ask(model="m", words="Sum up").prompt == "Sum up"
    assert Ask(model="m").prompt == ""


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("high", "high"), ("max", "max")])
def test_think_has_these_values(text: str, value: bool | str) -> None:
    assert read_think(text) == value


def test_other_values_of_think_are_named() -> None:
    with pytest.raises(WrongUsage, match='--think: "much"'):
        read_think("much")


@pytest.mark.parametrize("keep_alive", ["5", "-1", "soon"])
def test_keepalive_needs_a_unit(keep_alive: str) -> None:
    with pytest.raises(WrongUsage, match="--keepalive"):
        shared_fields(Ask(model="m", keep_alive=keep_alive))


def test_flags_become_fields() -> None:
    assert shared_fields(Ask(model="m", keep_alive="-1m", format='{"type":"object"}', think="low")) == {
        "keep_alive": "-1m",
        "format": {"type": "object"},
        "think": "low",
    }


@pytest.mark.parametrize("text", ["yaml", "[1]", '"json"', "{"])
def test_a_format_is_json_or_a_schema(text: str) -> None:
    with pytest.raises(WrongUsage, match="--format"):
        read_format(text)


def test_a_model_is_a_file_when_it_looks_and_is_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert local_path("x.gguf") == Path("x.gguf")
    assert local_path("./x.gguf") == Path("x.gguf")
    assert local_path(str(tmp_path / "x.gguf")) == tmp_path / "x.gguf"
    assert local_path("smollm2:135m") is None
    assert local_path("hf.co/someone/model.gguf") is None
    assert local_path("./y.gguf") == Path("y.gguf"), "there or not"
    assert local_path("y.gguf") is None
    assert local_path("file:///a%20b/x.gguf") == local_path("file://localhost/a%20b/x.gguf") == Path("/a b/x.gguf")
    for text in ("file://far/x.gguf", "file:x.gguf"):
        with pytest.raises(InvalidRequest, match="names no file of this machine"):
            local_path(text)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("SmolLM2-135M.Q4_1.gguf", "local/smollm2-135m.q4_1"),
        ("my model (new).gguf", "local/my-model-new"),
        ("ü.gguf", "local/model"),
        ("x" * 200 + ".gguf", "local/" + "x" * 80),
    ],
)
def test_an_imported_file_has_a_valid_name(path: str, name: str) -> None:
    assert file_name(Path(path)) == name
    Name.parse(name)
