"""What the library is told wrongly is refused in words, and nothing ends the process: neither in what it is told of a
model, nor of a step, nor by numbers that are none.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import CDLL, Structure, c_float, c_void_p
from typing import Any

import numpy as np
import pytest

from fakes.native import CACHE_BYTES, TYPES, Model, Tiny, guarded, matrix, numbers, pack, product, tensor
from puna.engine.cpu import structures
from puna.engine.cpu.structures import ConvolutionStruct, DeltaStruct, MatrixStruct, MixtureStruct, StepStruct
from puna.errors import LoadFailed
from puna.model.ggml import TensorType

WHOLE = (-(2**31), -1, 0, 1, 2, 3, 31, 32, 33, 64, 96, 4097, 2**19, 2**20, 2**24, 2**28, 2**30, 2**31 - 1)
BROKEN = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e38, 1e-45)
MORE_THAN_THERE_IS = {"layers", "embedding_bytes", "cache_bytes", "states_bytes", "states_stride", "states", "taps"}
"""Of these the library has only the caller's word: nothing larger is tried."""

PLAIN = Tiny(layers=1, head_norms=True, post_norms=True, sinks=True)
CONVOLUTION = Tiny(layers=1, taps=(3,))
LINEAR = Tiny(layers=1, taps=(3,), linear=(1, 2))
EXPERTS = Tiny(layers=1, experts=3, used=2, cache=CACHE_BYTES)
LINE = 64


class Door:
    """A tiny model whose structures may be changed, and what the library says to it."""

    def __init__(self, library: CDLL, tiny: Tiny) -> None:
        self.made = Model(library, tiny, threads=2, blocks=4, most_rows=8, states=3)
        self.library, self.tiny = library, tiny
        self.why = ctypes.create_string_buffer(100)

    def structures(self) -> Iterator[Structure]:
        layer = self.made.layers[0]
        yield self.made.model
        yield self.made.model.output
        yield self.made.model.rope[0]
        yield layer
        if layer.delta:
            delta = ctypes.cast(layer.delta, ctypes.POINTER(DeltaStruct)).contents
            yield delta
            yield from (delta.mixed, delta.gate, delta.beta, delta.alpha, layer.output)
        elif layer.convolution:
            convolution = ctypes.cast(layer.convolution, ctypes.POINTER(ConvolutionStruct)).contents
            yield convolution
            yield from (convolution.before, convolution.after, convolution.input, layer.output)
        else:
            yield from (layer.query, layer.value, layer.output)
        if self.tiny.experts:
            mixture = ctypes.cast(layer.mixture, ctypes.POINTER(MixtureStruct)).contents
            yield mixture
            yield mixture.router
            yield ctypes.cast(mixture.down, ctypes.POINTER(MatrixStruct * 3)).contents[2]
        else:
            yield from (layer.gate, layer.down)

    def open(self) -> int | None:
        self.why.value = b""
        engine: int | None = self.library.puna_create(ctypes.addressof(self.made.model), 2, self.why, 100)
        if engine is None:
            assert self.why.value
        return engine

    def try_it(self) -> bool:
        """Whether it is taken; what is taken computes a step."""
        engine = self.open()
        if engine is None:
            return False
        rows = min(3, self.made.model.most_rows, self.made.model.context)
        out = guarded(4 * 3 * (self.tiny.vocabulary + LINE))
        lists = [np.array(each, np.int32) for each in ([0] * rows, [0], [0, rows], [0], [0, 1], range(rows))]
        step = StepStruct(rows, 1, rows, *(each.ctypes.data for each in lists), out.ctypes.data)
        told = [np.array([each], np.int32) for each in (max(self.made.model.states, 0) - 1, 0, rows)]
        step.state, step.absorbed, step.keep = (each.ctypes.data for each in told)
        assert self.library.puna_step(engine, ctypes.addressof(step), self.why, 100) == 0, self.why.value
        self.library.puna_destroy(engine)
        return True


def changed(structure: Structure) -> Iterator[tuple[str, Any]]:
    """One field after another with one bad value after another; each has its own again in between."""
    for name, kind in structure._fields_:  # type: ignore[misc]
        if not isinstance(kind, type) or not issubclass(kind, ctypes._SimpleCData) or name == "unused":
            continue
        kept = getattr(structure, name)
        values: tuple[Any, ...] = (None,) if kind is c_void_p else BROKEN if kind is c_float else WHOLE
        for value in values:
            if value is None or name not in MORE_THAN_THERE_IS or value < kept:
                setattr(structure, name, value)
                yield name, value
        setattr(structure, name, kept)


NEEDED = {"data", "speeds", "attention_norm", "feed_norm", "cache", "embedding", "output_norm", "layer", "query_norm",
          "key_norm", "filter", "decay"}  # fmt: skip
"""Pointers that must be there (or that come in pairs: only the plain model has them)."""


@pytest.mark.parametrize(
    "tiny", [PLAIN, EXPERTS, CONVOLUTION, LINEAR], ids=["plain", "experts", "convolution", "linear"]
)
def test_models_that_cannot_be(native: CDLL, tiny: Tiny) -> None:
    door = Door(native, tiny)
    taken: set[str] = set()
    refused: set[str] = set()
    for structure in door.structures():
        for name, value in changed(structure):
            was_taken = door.try_it()
            (taken if was_taken else refused).add(name)
            if value is None and name in NEEDED and (name.endswith("norm") is False or tiny is PLAIN):
                assert not was_taken, name
            if isinstance(value, int) and value < 0 and name not in {"rope", "renormalise", "bytes"}:
                assert not was_taken, (name, value)
    assert door.try_it(), "everything has its own value again"
    assert {"hidden", "heads", "vocabulary", "format", "bytes", "outputs", "k", "data"} <= refused
    assert {"epsilon", "post_feed_norm", "bias"} <= taken


def test_what_lies_askew_or_is_too_small(native: CDLL) -> None:
    door = Door(native, PLAIN)
    layer, model = door.made.layers[0], door.made.model
    for structure, name in ((layer.query, "data"), (layer, "cache")):
        setattr(structure, name, getattr(structure, name) + 4)
        assert door.open() is None
        setattr(structure, name, getattr(structure, name) - 4)
    for structure, name in ((layer.query, "bytes"), (layer, "cache_bytes"), (model, "embedding_bytes")):
        setattr(structure, name, getattr(structure, name) - 1)
        assert door.open() is None
        setattr(structure, name, getattr(structure, name) + 1)
    six = matrix(TensorType.Q6_K, 64, 256, np.random.default_rng(0))
    packed, held = pack(native, six)
    packed.k = 64
    x, out = guarded(4 * 64), guarded(4 * 64)
    assert native.puna_product(ctypes.addressof(packed), x.ctypes.data, 1, out.ctypes.data) == 1
    del held


def test_speeds_that_turn_too_far(native: CDLL) -> None:
    door = Door(native, PLAIN)
    speeds = np.ones(16, np.float32)
    door.made.model.rope[0].speeds = speeds.ctypes.data
    assert door.try_it()
    for value in (1e30, float("nan"), -float("inf"), 2.0**31 / 128):
        speeds[15] = value
        assert door.open() is None
        assert b"rotation" in door.why.value


def test_threads_and_places_for_words(native: CDLL) -> None:
    door = Door(native, PLAIN)
    model = ctypes.addressof(door.made.model)
    for threads in (0, -1, 65, 2**31 - 1):
        assert native.puna_create(model, threads, door.why, 100) is None
        assert b"threads" in door.why.value
    assert native.puna_create(None, 1, door.why, 100) is None
    assert native.puna_create(model, 1, None, 100) is None
    assert native.puna_create(model, 1, door.why, 0) is None
    short = ctypes.create_string_buffer(b"123456789")
    assert native.puna_create(model, 0, short, 4) is None
    assert short.raw[4:9] == b"56789", "no more than there is room for"
    native.puna_destroy(None)


def test_steps_that_cannot_be(native: CDLL) -> None:
    made = Model(native, PLAIN, threads=2, blocks=4, most_rows=8)
    why = ctypes.create_string_buffer(100)
    good = {"ids": [1, 2, 3, 4, 5], "past": [30, 0], "begins": [0, 3, 5], "blocks": [0, 1, 2],
            "block_begins": [0, 2, 3], "want": [2, 4]}  # fmt: skip
    out = guarded(4 * 8 * 128)

    def fault(lists: dict[str, list[int]], **fields: object) -> int:
        held = [guarded(np.array(each, np.int32)) for each in lists.values()]
        step = StepStruct(5, 2, 2, *(each.ctypes.data for each in held), out.ctypes.data)
        for name, value in fields.items():
            setattr(step, name, value)
        why.value = b""
        result: int = native.puna_step(made.engine, ctypes.addressof(step), why, 100)
        assert result == 0 or why.value
        return result

    assert fault(good) == 0
    for name in ("ids", "past", "begins", "blocks", "block_begins", "want", "logits"):
        assert fault(good, **{name: None})
    for name, values in (("rows", WHOLE), ("sequences", WHOLE), ("wanted", (-(2**31), -1, 6, 2**31 - 1))):
        own = {"rows": 5, "sequences": 2}.get(name)
        for value in values:
            if value not in {own, 2 if name == "wanted" else own} and not (name == "sequences" and value in {1, 3}):
                assert fault(good, **{name: value}), (name, value)
    allowed = {"ids": range(100), "blocks": range(4), "want": range(5)}
    for name, numbers_of in good.items():
        for place in range(len(numbers_of)):
            for value in (*WHOLE, 99, 100, 126, 128):
                changed_list = [*numbers_of]
                changed_list[place] = value
                is_fault = fault({**good, name: changed_list})
                if name in allowed:
                    assert bool(is_fault) == (value not in allowed[name]), (name, value)
                elif (value < 0 or value > 99) and (name, place) != ("block_begins", 2):
                    assert is_fault, (name, place, value)
    assert fault({**good, "block_begins": [0, 2, 2]}), "the last sequence has no blocks"
    assert fault(good) == 0
    assert native.puna_step(None, None, why, 100)
    assert native.puna_spent(made.engine, 2, out.ctypes.data)
    assert native.puna_spent(made.engine, -1, out.ctypes.data)
    assert native.puna_spent(made.engine, 0, None)


@pytest.mark.parametrize("kind", TYPES)
def test_packing_of_what_is_not_there(native: CDLL, kind: TensorType) -> None:
    source = matrix(kind, 40, 256, np.random.default_rng(0))
    size = native.puna_packed_bytes(kind.value, 40, 256)
    raw, target = guarded(source.raw), guarded(size)
    order = np.arange(40, dtype=np.int32)

    def fault(**other: object) -> int:
        found = {
            "type": kind.value, "source": raw.ctypes.data, "source_bytes": raw.nbytes, "outputs": 40, "k": 256,
            "order": order.ctypes.data, "scale": 1.0, "target": target.ctypes.data, "target_bytes": size, "from": 0,
            "to": 3, **other,
        }  # fmt: skip
        result: int = native.puna_pack(*found.values())
        return result

    assert fault() == 0
    huge = (-(2**63), -1, 2**31 - 1, 2**31, 2**62, 2**63 - 1)
    for name in ("source", "target"):
        assert fault(**{name: None})
    for name in ("outputs", "k"):
        for value in (*huge, 0, 64 if name == "outputs" else 512):
            assert fault(**{name: value}), (name, value)
    for value in (*huge[:2], 0, size - 1):
        assert fault(target_bytes=value)
    for value in (*huge[:2], raw.nbytes - 1):
        assert fault(source_bytes=value)
        assert fault(source_bytes=value, order=None)
    for begin, end in ((-1, 3), (2, 1), (0, 4), (3, 4), (2**62, 2**62 + 1), (-(2**63), 2**63 - 1)):
        assert fault(**{"from": begin, "to": end})
    for value in (-2, 40, 2**31 - 1, -(2**31)):
        order[39] = value
        assert fault()
        assert fault(**{"from": 0, "to": 2}) == 0, "rows that are not asked for are not looked at"
    assert fault(target=target.ctypes.data + 4)
    for value in (-1, 9, 40, 2**31 - 1, -(2**31)):
        assert fault(type=value)
        assert native.puna_unpack(value, raw.ctypes.data, raw.nbytes, 1, 256, target.ctypes.data)
    for rows in (-1, 41, 2**62, 2**63 - 1):
        assert native.puna_unpack(kind.value, raw.ctypes.data, raw.nbytes, rows, 256, target.ctypes.data)
    assert native.puna_unpack(kind.value, None, raw.nbytes, 1, 256, target.ctypes.data)
    assert native.puna_unpack(kind.value, raw.ctypes.data, raw.nbytes, 1, 256, None)


def test_sizes_of_what_cannot_be(native: CDLL) -> None:
    for outputs in (0, -1, 2**31, 2**63 - 1, -(2**63)):
        assert native.puna_packed_bytes(TensorType.F32.value, outputs, 32) == -1
        assert native.puna_packed_bytes(TensorType.F32.value, 32, outputs) == -1
    assert native.puna_packed_bytes(TensorType.Q4_0.value, 16, 33) == -1
    assert native.puna_packed_bytes(TensorType.Q4_K.value, 16, 128) == -1
    assert native.puna_struct_bytes(-1) == native.puna_struct_bytes(100) == -1
    for kind, heads, head in ((2, 1, 64), (-1, 1, 64), (0, 0, 64), (0, -5, 64), (0, 1, 33), (0, 1, 0), (1, 1, 544)):
        assert native.puna_block_bytes(kind, heads, head) == -1
    for keys, values, size in (
        (0, 1, 32),
        (2, 3, 32),
        (1, 4097, 32),
        (1, 1, 33),
        (1, 1, 544),
        (1, -1, 32),
        (-1, 1, 32),
    ):
        assert native.puna_delta_bytes(keys, values, size) == -1
    for values, size in ((0, 32), (4097, 32), (1, 0), (1, 544)):
        assert native.puna_state_bytes(values, size) == -1
    for hidden in (-32, 0, 31, 2**20 + 32, 2**31 - 32):
        assert native.puna_convolution_bytes(hidden) == -1


def test_a_library_with_other_structures_is_not_used(native: CDLL) -> None:
    structures.check(native)

    class Other:
        def puna_struct_bytes(self, which: int) -> int:
            found: int = native.puna_struct_bytes(which)
            return found + 8 if which == 4 else found

    with pytest.raises(LoadFailed, match="another ModelStruct"):
        structures.check(Other())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", TYPES)
def test_weights_that_are_no_numbers(native: CDLL, kind: TensorType) -> None:
    """Blocks of random bytes: what comes out is of no use, but it comes."""
    random = np.random.default_rng(1)
    plain = tensor(kind, 33, 512, random)
    raw = random.integers(0, 256, plain.shape, np.uint8)
    with np.errstate(all="ignore"):
        source = matrix(kind, 33, 512, random)
        source = type(source)(kind, raw, numbers(kind, raw))
    packed, held = pack(native, source)
    for value in (1.0, 3e38, float("inf"), float("nan")):
        x = random.standard_normal((9, 512)).astype(np.float32)
        x[4, 100:140] = value
        assert product(native, packed, x).shape == (9, 33)
    del held


@pytest.mark.parametrize("tiny", [PLAIN, EXPERTS, Tiny(kind=TensorType.Q4_0), Tiny(attention_cap=3.0, logit_cap=1.0)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_models_of_no_numbers_end_their_steps(native: CDLL, tiny: Tiny, value: float) -> None:
    for field in ("attention_norm", "feed_norm", "output_norm"):
        made = Model(native, tiny, threads=3, blocks=4, most_rows=8)
        norm = np.full(tiny.hidden, value, np.float32)
        structure = made.model if field == "output_norm" else made.layers[0]
        setattr(structure, field, norm.ctypes.data)
        assert made.all_rows(list(range(20)), chunks=[8, 1, 8]).shape == (20, 100)


@pytest.mark.parametrize(
    ("states", "word"),
    [
        (((3, 0, 4),), b"no state 3"),
        (((0, -1, 4),), b"to become"),
        (((0, 1, 4),), b"to become"),
        (((0, 0, -1),), b"to become"),
        (((0, 0, 5),), b"to become"),
        (((1, 0, 4), (1, 0, 4)), b"two sequences"),
        (((-(2**31), 2**30, 2**30), (2**31 - 1, 0, 4)), b"no state"),
    ],
)
def test_states_that_cannot_be(native: CDLL, states: tuple[tuple[int, int, int], ...], word: bytes) -> None:
    model = Model(native, LINEAR, blocks=4, most_rows=8, states=3)
    parts = [([1, 2, 3, 4], 0, [number]) for number in range(len(states))]
    with pytest.raises(AssertionError) as refused:
        model(parts, [0], states)
    assert word.decode() in str(refused.value)
    assert np.isfinite(model(parts, [0], [(-1, 0, 0)] * len(parts))).all()
