import pytest

from puna.errors import PunaError, SourceNotFound, Unsupported
from puna.model.name import Name
from puna.sources.catalogue import CATALOGUE, SMOLLM2_135M, find_entry
from puna.sources.pull import check_source


@pytest.mark.parametrize("text", ["smollm2", "smollm2:135m", "SmolLM2:LATEST", "library/smollm2"])
def test_found(text: str) -> None:
    assert find_entry(Name.parse(text)) is SMOLLM2_135M


def test_every_name_is_a_name() -> None:
    for text, entry in CATALOGUE.items():
        assert Name.parse(text).short == text
        assert text in entry.names


@pytest.mark.parametrize("text", ["smollm2", "pypi/x", "PyPI/some.model:1.0"])
def test_sources(text: str) -> None:
    check_source(Name.parse(text))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("smollm2:1.7b", SourceNotFound),
        ("llama3", SourceNotFound),
        ("someone/llama3", SourceNotFound),
        ("example.com/pypi/x", Unsupported),
        ("localhost:5000/library/smollm2", Unsupported),
        ("pypi/_private", SourceNotFound),
        ("pypi/x:_", SourceNotFound),
    ],
)
def test_no_source(text: str, kind: type[PunaError]) -> None:
    with pytest.raises(kind) as caught:
        check_source(Name.parse(text))
    assert type(caught.value) is kind
    assert caught.value.param == "model"
    if not text.startswith("pypi"):
        assert "puna pull pypi/PACKAGE" in caught.value.message
