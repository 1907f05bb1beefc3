"""Every family and every tensor type, on small random models: against plain NumPy, and against llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from puna.engine.cpu.families import FAMILIES
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
_SCALES = {"embedding_scale": 1.5, "residual_scale": 0.4, "attention.scale": 0.2, "logit_scale": 2.5}

_TWO_SHAPES = {
    "attention.sliding_window": 48,
    "attention.sliding_window_pattern": [True, False, True, False, True, True, False],
    "attention.key_length_swa": 64,
    "attention.value_length_swa": 64,
    "attention.head_count_kv": [4, 2, 4, 2, 4, 4, 2],
    "attention.shared_kv_layers": 3,
    "feed_forward_length": [256, 256, 256, 256, 512, 512, 512],
    "rope.dimension_count_swa": 64,
    "rope.freq_base": 1000000.0,
    "rope.freq_base_swa": 10000.0,
    "final_logit_softcapping": 30.0,
}
_ONE_SHAPE = {
    "attention.sliding_window": 48,
    "attention.sliding_window_pattern": [True, False, True],
    "attention.key_length_swa": 128,
    "attention.value_length_swa": 128,
    "rope.dimension_count_swa": 128,
    "embedding_length_per_layer_input": 0,
}
_PARTLY_TURNED = {"rope_freqs.weight": [1.0] * 16 + [1e30] * 48}

RECIPES = {
    "llama": Recipe(),
    "llama, tied": Recipe(tied=True),
    "llama, biases": Recipe(biases=True),
    "llama 3": Recipe(extra={"rope_freqs.weight": _SLOPE}),
    "llama, linear": Recipe(settings=_LINEAR),
    "llama, yarn": Recipe(settings=_YARN),
    "smollm3": Recipe(family="smollm3", layers=5),
    "qwen2": Recipe(family="qwen2", biases=True),
    "qwen2, yarn": Recipe(family="qwen2", biases=True, settings=_YARN),
    "qwen3": Recipe(family="qwen3", head_size=128),
    "qwen3moe": Recipe(family="qwen3moe", experts=8, feed_forward=64),
    "gemma2": Recipe(family="gemma2", tied=True, layers=3, head_size=128, settings=_WINDOW),
    "gemma3": Recipe(family="gemma3", layers=7, head_size=128, settings=_WINDOW),
    "gemma3, linear": Recipe(family="gemma3", layers=7, settings=_WINDOW | _LINEAR),
    "gemma4": Recipe(
        family="gemma4",
        layers=7,
        head_size=128,
        tied=True,
        additions=64,
        extra=_PARTLY_TURNED,
        settings=_TWO_SHAPES | {"embedding_length_per_layer_input": 64},
    ),
    "gemma4, keys as values": Recipe(
        family="gemma4", layers=3, head_size=128, keys_as_values=True, extra=_PARTLY_TURNED, settings=_ONE_SHAPE
    ),
    "gemma4, experts": Recipe(
        family="gemma4",
        layers=3,
        head_size=128,
        experts=6,
        feed_forward=96,
        extra=_PARTLY_TURNED,
        settings=_ONE_SHAPE | {"feed_forward_length": [256, 256, 256]},
    ),
    "llama, heads of 80": Recipe(head_size=80),
    "qwen3, heads of 40": Recipe(family="qwen3", head_size=40),
    "phi3, heads of 72": Recipe(family="phi3", head_size=72, kv_heads=4, hidden=288),
    "phi3": Recipe(family="phi3", kv_heads=4),
    "phi3, part of a head": Recipe(family="phi3", rotary=48),
    "phi3, short": Recipe(family="phi3", settings=_SHORT, extra=_FACTORS),
    "phi3, long": Recipe(family="phi3", settings=_LONG, extra=_FACTORS),
    "granite": Recipe(family="granite", settings=_SCALES),
    "lfm2": Recipe(family="lfm2", layers=4, tied=True, convolutions=(0, 2)),
    "lfm2, a convolution last": Recipe(family="lfm2", layers=3, heads=8, head_size=32, convolutions=(0, 2)),
    "qwen35": Recipe(family="qwen35", layers=2, interval=2, rotary=48),
    "qwen35, linear attention last": Recipe(family="qwen35", layers=3, interval=2),
    "gpt-oss": Recipe(family="gpt-oss", layers=3, experts=4, biases=True, settings=_WINDOW | _YARN),
}


@pytest.fixture
def ids() -> Sequence[int]:
    numbers: list[int] = np.random.default_rng(5).integers(3, VOCABULARY, POSITIONS).tolist()
    return numbers


def test_no_family_is_forgotten() -> None:
    assert {recipe.family for recipe in RECIPES.values()} == FAMILIES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_family_is_the_plain_computation(name: str, ids: Sequence[int], tmp_path: Path) -> None:
    """The few larger differences are keys and values at the edge between two numbers of 16 bits."""
    model = tmp_path / "model.gguf"
    write_model(model, RECIPES[name])
    expected = Reference(model, num_ctx=POSITIONS, halves=True).logits(ids)
    apart = np.abs(forward_logits(model, ids, num_ctx=POSITIONS) - expected) / float(expected.std())
    assert float(apart.mean()) <= 1e-4
    assert float(apart.max()) <= 4e-3


@pytest.mark.parametrize("name", RECIPES)
def test_a_family_agrees_with_llama_cpp(name: str, ids: Sequence[int], tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    write_model(model, RECIPES[name])
    theirs = native_logits(model, ids)
    ours = agreement(theirs, forward_logits(model, ids, num_ctx=POSITIONS))
    assert ours.top >= 0.97
    assert ours.divergence < 0.01


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_a_type_agrees_with_llama_cpp_and_with_the_plain_computation(
    kind: str, ids: Sequence[int], tmp_path: Path
) -> None:
    """What llama.cpp rounds in its sums takes it as far from the plain computation as these are from each other."""
    model = tmp_path / "model.gguf"
    write_model(model, Recipe(kind=TensorType[kind]), seed=1)
    logits = forward_logits(model, ids)
    plain = agreement(Reference(model).logits(ids), logits)
    assert plain.top >= 0.97
    assert plain.divergence < 0.004
    theirs = agreement(native_logits(model, ids), logits)
    assert theirs.top >= 0.96
    assert theirs.divergence < 0.01


@pytest.mark.parametrize("kind", ["MXFP4", "Q8_0"])
def test_experts_may_be_quantised(kind: str, ids: Sequence[int], tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    write_model(model, replace(RECIPES["gpt-oss"], kind=TensorType[kind]))
    ours = agreement(Reference(model, num_ctx=POSITIONS).logits(ids), forward_logits(model, ids, num_ctx=POSITIONS))
    assert ours.top >= 0.95
    assert ours.divergence < 0.02


def test_what_went_before_matters_to_these_models(ids: Sequence[int], tmp_path: Path) -> None:
    """So the agreement above says something: another history, or another rotation, is ten times as far away."""
    model, turned = tmp_path / "model.gguf", tmp_path / "turned.gguf"
    write_model(model, Recipe())
    write_model(turned, Recipe(settings=_LINEAR))
    logits = forward_logits(model, ids)
    half = POSITIONS // 2
    history = [*reversed(ids[:half]), *ids[half:]]
    assert agreement(logits[half:], forward_logits(model, history)[half:]).divergence > 0.1
    assert agreement(logits, forward_logits(turned, ids)).divergence > 0.1
