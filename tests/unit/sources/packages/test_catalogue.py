from dataclasses import replace
from pathlib import Path

import pytest

from fakes.gguf_files import CHATML, gguf_bytes
from fakes.stores import put_model
from puna.errors import PunaError, SourceNotFound
from puna.model.digest import Digest
from puna.model.model import Model
from puna.model.name import Name
from puna.sources.packages import catalogue
from puna.sources.packages.catalogue import CATALOGUE, SMOLLM2_135M, find_entry, stand_in
from puna.sources.packages.packages import Packages
from puna.sources.source import Terms
from puna.sources.sources import Sources
from puna.store.library import Library


def check_source(name: Name, library: Library) -> None:
    Sources(library, [Packages()]).check(name)


@pytest.mark.parametrize("text", ["smollm2", "smollm2:135m", "SmolLM2:LATEST", "library/smollm2"])
def test_found(text: str) -> None:
    assert find_entry(Name.parse(text)) is SMOLLM2_135M


def test_every_name_is_a_name() -> None:
    for text, entry in CATALOGUE.items():
        assert Name.parse(text).short == text
        assert text in entry.names


@pytest.mark.parametrize("text", ["smollm2", "pypi/x", "PyPI/some.model:1.0"])
def test_sources(text: str, tmp_path: Path) -> None:
    check_source(Name.parse(text), Library.open(tmp_path))


@pytest.mark.parametrize("text", ["pypi/_private", "pypi/x:_"])
def test_no_package(text: str, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound) as caught:
        check_source(Name.parse(text), Library.open(tmp_path))
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    "text", ["smollm2:1.7b", "llama3", "someone/llama3", "example.com/pypi/x", "a.test:1/library/smollm2"]
)
def test_of_others(text: str) -> None:
    assert not Packages().takes(Name.parse(text), Terms())


def test_a_host_that_is_written_is_meant() -> None:
    assert Packages().takes(Name.parse("smollm2"), Terms())
    assert not Packages().takes(Name.parse("registry.ollama.ai/library/smollm2"), Terms(literal=True))
    assert Name.writes_host("https://registry.ollama.ai/library/smollm2:135m")
    assert not any(map(Name.writes_host, ("smollm2", "library/smollm2:135m", "pypi/x:1")))


WEIGHTS = gguf_bytes(chat_template=CHATML)


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> catalogue.Entry:
    """An entry whose weights the tests can write."""
    made = replace(SMOLLM2_135M, weights=Digest.of(WEIGHTS), names=("twin:latest", "twin:1b"), stop=("END",))
    monkeypatch.setattr(catalogue, "CATALOGUE", dict.fromkeys(made.names, made))
    return made


@pytest.mark.parametrize(("stored", "asked"), [("twin:1b", "twin"), ("twin:latest", "twin:1b"), ("twin:1b", "TWIN")])
def test_a_short_name_answers_for_the_other_of_its_entry(
    entry: catalogue.Entry, tmp_path: Path, stored: str, asked: str
) -> None:
    put_model(tmp_path, stored.replace(":", "/"), WEIGHTS, {"params": b'{"stop":["END"]}', "license": b"MIT"})
    library = Library.open(tmp_path, stand_in=stand_in)
    name = Name.parse(asked)
    assert library.known(name) is None
    assert library.resolve(name).name == Name.parse(stored)
    assert library.known(name) is library.resolve(Name.parse(stored))
    assert not library.has(name)
    for refused in (lambda: library.delete(name), lambda: library.copy(name, Name.parse("x"))):
        with pytest.raises(PunaError, match=rf"not found \(did you mean '{stored}'\?\)"):
            refused()


@pytest.mark.parametrize(
    "layers",
    [
        {"params": b'{"stop":["END"],"temperature":0}'},
        {},
        {"params": b'{"stop":["END"]}', "system": b"Be rude."},
        {"params": b'{"stop":["END"]}', "template": b"{{ .Prompt }}"},
        {"params": b'{"stop":["END"]}', "messages": b'[{"role":"user","content":"Hi"}]'},
    ],
)
def test_a_model_that_somebody_changed_answers_to_its_own_name_only(
    entry: catalogue.Entry, tmp_path: Path, layers: dict[str, bytes]
) -> None:
    put_model(tmp_path, "twin/1b", WEIGHTS, layers)
    with pytest.raises(PunaError, match="not found"):
        Library.open(tmp_path, stand_in=stand_in).resolve(Name.parse("twin"))


def test_a_name_of_its_own_comes_first(entry: catalogue.Entry, tmp_path: Path) -> None:
    put_model(tmp_path, "twin/1b", WEIGHTS, {"params": b'{"stop":["END"]}'})
    library = Library.open(tmp_path, stand_in=stand_in)
    assert library.resolve(Name.parse("twin")).name == Name.parse("twin:1b")
    put_model(tmp_path, "twin/latest", gguf_bytes(architecture="qwen2"))
    found: Model = library.resolve(Name.parse("twin"))
    assert (found.name, found.header.architecture) == (Name.parse("twin"), "qwen2")
