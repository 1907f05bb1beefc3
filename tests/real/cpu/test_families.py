"""Every family and every tensor type, on small random models: against llama.cpp, and `exact` against plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from puna.engine.cpu.supported import TYPES
from puna.model.ggml import TensorType
from real.cpu.models import VOCABULARY, Recipe, agreement, forward_logits, native_logits, write_model
from real.cpu.reference import Reference

POSITIONS = 200
_SLOPE = [1 + place / 4 for place in range(32)]
_YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
_LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
_WINDOW = {"attention.sliding_window": 48}
_LONG = {"rope.scaling.original_context_length": 64, "rope.scaling.attn_factor": 1.19}
_SHORT = {"rope.scaling.original_context_length": 4096, "rope.scaling.attn_factor": 1.19}
_FACTORS = {"rope_factors_long.weight": _SLOPE, "rope_factors_short.weight": [1.1] * 32}

PLAIN = {
    "llama": Recipe(),
    "llama, tied": Recipe(tied=True),
    "llama, biases": Recipe(biases=True),
    "llama 3": Recipe(extra={"rope_freqs.weight": _SLOPE}),
    "llama, linear": Recipe(settings=_LINEAR),
    "qwen2": Recipe(family="qwen2", biases=True),
    "qwen3": Recipe(family="qwen3", head_size=128),
    "gemma3": Recipe(family="gemma3", layers=7, head_size=128, settings=_WINDOW),
    "gemma3, linear": Recipe(family="gemma3", layers=7, settings=_WINDOW | _LINEAR),
    "phi3": Recipe(family="phi3", kv_heads=4),
    "phi3, part of a head": Recipe(family="phi3", rotary=48),
}
"""What the NumPy reference computes too."""

SCALED = {
    "llama, yarn": Recipe(settings=_YARN),
    "qwen2, yarn": Recipe(family="qwen2", biases=True, settings=_YARN),
    "phi3, short": Recipe(family="phi3", settings=_SHORT, extra=_FACTORS),
    "phi3, long": Recipe(family="phi3", settings=_LONG, extra=_FACTORS),
}


@pytest.fixture
def ids() -> Sequence[int]:
    numbers: list[int] = np.random.default_rng(5).integers(3, VOCABULARY, POSITIONS).tolist()
    return numbers


@pytest.mark.parametrize("name", [*PLAIN, *SCALED])
def test_a_family_agrees_with_llama_cpp(name: str, ids: Sequence[int], tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    write_model(model, (PLAIN | SCALED)[name])
    theirs = native_logits(model, ids)
    ours = agreement(theirs, forward_logits(model, ids, num_ctx=POSITIONS))
    assert ours.top >= 0.97
    assert ours.divergence < 0.01


@pytest.mark.parametrize("name", PLAIN)
def test_exact_equals_the_plain_computation(name: str, ids: Sequence[int], tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    write_model(model, PLAIN[name])
    expected = Reference(model).logits(ids)
    logits = forward_logits(model, ids, exact=True, num_ctx=POSITIONS)
    assert agreement(expected, logits).top >= 0.999
    np.testing.assert_allclose(logits, expected, atol=2e-3 * float(expected.std()))


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_a_type_agrees_with_llama_cpp_and_exactly_with_the_plain_computation(
    kind: str, ids: Sequence[int], tmp_path: Path
) -> None:
    model = tmp_path / "model.gguf"
    write_model(model, Recipe(kind=TensorType[kind]), seed=1)
    ours = agreement(native_logits(model, ids), forward_logits(model, ids))
    assert ours.top >= 0.97
    assert ours.divergence < 0.01
    expected = Reference(model).logits(ids)
    assert agreement(expected, forward_logits(model, ids, exact=True)).top >= 0.999


def test_what_went_before_matters_to_these_models(ids: Sequence[int], tmp_path: Path) -> None:
    """So the agreement above says something: another history, or another rotation, is ten times as far away."""
    model, turned = tmp_path / "model.gguf", tmp_path / "turned.gguf"
    write_model(model, Recipe())
    write_model(turned, Recipe(settings=_LINEAR))
    logits = forward_logits(model, ids, exact=True)
    half = POSITIONS // 2
    history = [*reversed(ids[:half]), *ids[half:]]
    assert agreement(logits[half:], forward_logits(model, history, exact=True)[half:]).divergence > 0.1
    assert agreement(logits, forward_logits(turned, ids, exact=True)).divergence > 0.1
