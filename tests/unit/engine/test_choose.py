"""Which engine runs a model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from puna.engine.choose import MANY, Circumstances, choose
from puna.engine.cpu.supported import Machine
from puna.errors import Unsupported

FACTS = Circumstances(
    wish="auto",
    engines=frozenset({"cpu", "llama"}),
    machine=Machine("Linux", "x86_64", frozenset({"avx2"})),
    architecture="llama",
    tensor_types=frozenset({"F32", "Q4_1"}),
    metadata={"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm"},
    parallel=MANY,
)


def test_the_cpu_engine_for_many_requests_at_once_and_llama_should_it_not_load() -> None:
    assert choose(FACTS).engine == "cpu"
    assert choose(FACTS).instead == "llama"
    assert choose(replace(FACTS, engines=frozenset({"cpu"}))).instead is None
    assert choose(replace(FACTS, wish="cpu")).instead is None


@pytest.mark.parametrize("parallel", [0, 1, MANY - 1])
def test_llama_for_few_unless_it_is_not_there(parallel: int) -> None:
    few = replace(FACTS, parallel=parallel)
    assert choose(few).engine == "llama"
    assert "faster" in choose(few).reason
    assert choose(replace(few, engines=frozenset({"cpu"}))).engine == "cpu"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"engines": frozenset({"llama"})}, "not installed"),
        ({"machine": Machine("Darwin", "arm64")}, "x86-64"),
        ({"architecture": "mamba"}, "mamba"),
        ({"tensor_types": frozenset({"IQ1_S"})}, "IQ1_S"),
        ({"projectors": 1}, "projector"),
        ({"adapters": 1}, "adapters"),
        ({"embedding": True}, "embed"),
        ({"gpu_layers": 10}, "GPU"),
        ({"need": 3 << 30, "room": 2 << 30}, "3.0 GiB of memory, and 2.0"),
    ],
)
def test_else_llama_with_the_reason(changes: dict[str, object], why: str) -> None:
    choice = choose(replace(FACTS, **changes))  # type: ignore[arg-type]
    assert choice.engine == "llama"
    assert why in choice.reason


def test_a_named_engine_is_taken_or_refused() -> None:
    assert choose(replace(FACTS, wish="llama")).engine == "llama"
    with pytest.raises(Unsupported, match="not installed"):
        choose(replace(FACTS, wish="llama-server"))
    with pytest.raises(Unsupported, match="mamba"):
        choose(replace(FACTS, wish="cpu", architecture="mamba"))


@pytest.mark.parametrize("layers", [None, 0, -1])
def test_no_wish_for_a_gpu_is_none(layers: int | None) -> None:
    """Ollama's clients send -1 for "as you like"."""
    assert choose(replace(FACTS, wish="cpu", gpu_layers=layers)).engine == "cpu"


def test_the_scripted_engine_is_never_a_fallback() -> None:
    with pytest.raises(Unsupported):
        choose(replace(FACTS, engines=frozenset({"scripted"})))
