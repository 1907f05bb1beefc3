"""Steps of tiny models, against the same arithmetic in NumPy: each part of a layer, and each kind of context."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL
from dataclasses import replace

import numpy as np
import pytest

from fakes.native import (
    CACHE_BYTES,
    CACHE_HALVES,
    CLAMPED_SWIGLU,
    GELU,
    OF_FLOATS,
    TYPES,
    Model,
    Tiny,
    reference,
)
from puna.model.ggml import TensorType

PLAIN = Tiny()

MODELS = {
    "plain": PLAIN,
    "gelu": Tiny(activation=GELU),
    "clamped": Tiny(activation=CLAMPED_SWIGLU),
    "biases": Tiny(biases=True),
    "head norms": Tiny(head_norms=True),
    "post norms": Tiny(post_norms=True),
    "sinks": Tiny(sinks=True),
    "attention cap": Tiny(attention_cap=3.0),
    "logit cap": Tiny(logit_cap=2.0),
    "scaled embedding": Tiny(embedding_scale=8.0, embedding=TensorType.Q8_0),
    "windows": Tiny(layers=3, windows=(5, 0, 33)),
    "window of one": Tiny(windows=(1,)),
    "rotations": Tiny(layers=3, ropes=(0, -1, 1), speeds=(10000.0, 1e6)),
    "part of a head turned": Tiny(pairs=10, magnitude=1.2),
    "one head": Tiny(heads=1, kv_heads=1),
    "no heads shared": Tiny(kv_heads=4),
    "three share a head": Tiny(heads=6, kv_heads=2),
    "fourteen share a head": Tiny(heads=14, kv_heads=1),
    "heads of 64": Tiny(head=64),
    "heads of 96": Tiny(head=96, head_norms=True),
    "heads of 128": Tiny(head=128),
    "heads of 256": Tiny(head=256, heads=2),
    "heads of 512": Tiny(head=512, heads=2, kv_heads=1, head_norms=True),
    "convolutions": Tiny(layers=4, taps=(3, 0, 3)),
    "a convolution of one": Tiny(layers=1, taps=(1,)),
    "long convolutions over more channels than heads": Tiny(
        taps=(16, 0), hidden=160, kind=TensorType.Q8_0, biases=True, post_norms=True
    ),
    "convolutions and experts": Tiny(layers=3, taps=(0, 4), experts=5, used=2),
    "linear attention": Tiny(layers=3, taps=(4, 0, 4), linear=(2, 4), gated=True),
    "linear attention over part of a tile": Tiny(layers=1, taps=(2,), linear=(1, 3), size=64, biases=True),
    "linear attention of wide heads": Tiny(layers=1, taps=(1,), linear=(3, 3), size=96, kind=TensorType.Q8_0),
    "gated attention": Tiny(gated=True, head=64, head_norms=True, biases=True),
    "heads of 40": Tiny(head=40, head_norms=True, value_norms=True, biases=True),
    "heads of 72": Tiny(head=72, heads=8, kv_heads=4, sinks=True, gated=True),
    "heads of 2": Tiny(head=2, heads=16),
    "layers of several shapes": Tiny(
        layers=4, heads=4, shapes=((2, 64, 96), (1, 128, 64), (4, 40, 32)), head_norms=True, value_norms=True,
        windows=(9, 0), ropes=(1, 0, -1), speeds=(1e6, 1e4),
    ),
    "keys of other layers": Tiny(
        layers=7, shapes=((2, 32, 96), (1, 64, 96)), shared=4, windows=(9, 0), ropes=(0, 1), speeds=(1e4, 1e6),
        head_norms=True,
    ),
    "additions": Tiny(layers=3, additions=64, post_norms=True, scales=True, activation=GELU, embedding=TensorType.Q8_0),
    "additions to shared keys": Tiny(
        layers=3, additions=64, kind=TensorType.F16, post_norms=True, shared=2, head_norms=True
    ),
    "scales": Tiny(post_norms=True, scales=True),
    "experts": Tiny(experts=5, used=2),
    "one expert of one": Tiny(experts=1, used=1),
    "many experts": Tiny(
        experts=20, used=4, renormalise=False, share_scale=2.0, biases=True, post_norms=True, activation=CLAMPED_SWIGLU
    ),
    "all at once": Tiny(
        layers=3, heads=6, kv_heads=2, head=64, head_norms=True, post_norms=True, sinks=True, biases=True,
        attention_cap=20.0, logit_cap=10.0, embedding_scale=3.0, windows=(7, 0), ropes=(0, 1), speeds=(1e4, 1e6),
        activation=GELU, vocabulary=65,
    ),
}  # fmt: skip


def some_ids(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, 65, count)]


def agree(tiny: Tiny, found: np.ndarray, ids: Sequence[int], *, most: float) -> None:
    """`most`: how far a logit may be off, in units of the logits' spread.

    Floats in another order of sums differ by far less; but where a number falls to the other side of a rounding, in the
    cache or of an activation, all that comes after it is off by a part of that step.
    """
    expected = reference(tiny, tuple(ids))
    off = np.abs(found - expected) / expected.std()
    assert off.max() < most
    assert np.median(off) < most / 5


@pytest.mark.parametrize("cache", [CACHE_HALVES, CACHE_BYTES], ids=["halves", "bytes"])
@pytest.mark.parametrize("name", MODELS)
def test_a_layers_parts(native: CDLL, name: str, cache: int) -> None:
    tiny, ids = replace(MODELS[name], cache=cache), some_ids(70)
    agree(tiny, Model(native, tiny).all_rows(ids), ids, most=0.003 if cache == CACHE_HALVES else 0.03)


@pytest.mark.parametrize("experts", [0, 4], ids=["plain", "experts"])
@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind is not TensorType.F32])
def test_weights_of_every_type(native: CDLL, kind: TensorType, experts: int) -> None:
    tiny = Tiny(kind=kind, embedding=kind, hidden=256, between=256, head=64, biases=True, experts=experts)
    ids = some_ids(40)
    agree(tiny, Model(native, tiny).all_rows(ids), ids, most=0.003 if kind in OF_FLOATS else 0.15)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("cache", [CACHE_HALVES, CACHE_BYTES], ids=["halves", "bytes"])
@pytest.mark.parametrize("window", [0, 40, 700], ids=["all", "near", "far"])
def test_contexts_of_several_segments(native: CDLL, window: int, cache: int, threads: int) -> None:
    """Segments are of 512 positions; with few rows and several threads each goes to whoever is free."""
    tiny = Tiny(cache=cache, windows=(window,), sinks=True, kv_heads=1, layers=1)
    ids = some_ids(1060)
    found = Model(native, tiny, threads=threads).all_rows(ids, chunks=[64] * 8 + [1, 62, 1, 1] + [64] * 7 + [1, 1, 9])
    agree(tiny, found, ids, most=0.003 if cache == CACHE_HALVES else 0.03)


@pytest.mark.parametrize("threads", [1, 3])
def test_states_change_no_byte(native: CDLL, threads: int) -> None:
    """Kept, left out, taken back, absorbed only in part, and where nothing is wanted of a last layer."""
    tiny, ids, blocks = Tiny(layers=3, taps=(4, 0, 4), linear=(2, 4)), some_ids(90), range(3)
    expected = Model(native, tiny).all_rows(ids)
    model = Model(native, tiny, threads=threads, states=2)
    assert np.array_equal(model([(ids[:40], 0, blocks)], range(40), [(1, 0, 40)]), expected[:40])
    wrong = [ids[40], *some_ids(9, seed=1)]
    assert np.array_equal(model([(wrong, 40, blocks)], [0], [(1, 40, 41)]), expected[40:41])
    model([(ids[41:60], 41, blocks)], [], [(1, 41, 60)])
    assert np.array_equal(model([(ids[60:70], 60, blocks)], [4], [(1, 60, 60)]), expected[64:65])
    assert np.array_equal(model([(ids[70:71], 70, blocks)], [0], [(-1, 5, 9)]), expected[70:71])
    assert np.array_equal(model([(ids[71:80], 71, blocks)], range(9), [(1, 60, 75)]), expected[71:80])
    assert np.array_equal(model([(ids[80:90], 80, blocks)], range(10), [(0, 0, 90)]), expected[80:90])
