"""Tiny models straight for the native library, and the same arithmetic in NumPy.

What the library may read ends where a page begins that nobody may touch: one byte too far ends the process.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from puna.engine.cpu.structures import (
    AdditionStruct,
    ConvolutionStruct,
    DeltaStruct,
    InputsStruct,
    LayerStruct,
    MatrixStruct,
    MixtureStruct,
    ModelStruct,
    StepStruct,
)
from puna.model.ggml import TensorType

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

TYPES = (
    TensorType.F32, TensorType.F16, TensorType.BF16, TensorType.Q8_0, TensorType.Q4_0, TensorType.Q4_1, TensorType.Q5_0,
    TensorType.Q5_1, TensorType.Q2_K, TensorType.Q3_K, TensorType.Q4_K, TensorType.Q5_K, TensorType.Q6_K,
    TensorType.IQ4_NL, TensorType.IQ4_XS, TensorType.MXFP4,
)  # fmt: skip
"""All that the library reads."""

OF_FLOATS = {TensorType.F32, TensorType.F16, TensorType.BF16}
LANES, GROUP, BLOCK = 16, 32, 32
SILU, GELU, CLAMPED_SWIGLU = range(3)
CACHE_HALVES, CACHE_BYTES = range(2)

# ------------------------------------------------------------------------------------------------------------- memory


def guarded(content: NDArray[Any] | int) -> Bytes:
    """A copy of `content`, or so many zeros, up to the edge of a page that may not be touched."""
    raw = np.zeros(content, np.uint8) if isinstance(content, int) else np.ascontiguousarray(content).view(np.uint8)
    raw = raw.reshape(-1)
    page = mmap.PAGESIZE
    whole = max(1, -(-raw.size // page)) * page
    held = mmap.mmap(-1, whole + page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory = np.frombuffer(held, np.uint8)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(memory.ctypes.data + whole, page, 0) == 0
    result = memory[whole - raw.size : whole]
    result[:] = raw
    return result


# ------------------------------------------------------------------------------------------------------------ tensors

HALVES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
}  # fmt: skip
"""Where a block of each type keeps numbers of 16 bits: its scales and minima."""


def block_of(kind: TensorType) -> tuple[int, int]:
    """Weights and bytes of a block."""
    weights, size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind.name]]
    return weights, size


def tensor(kind: TensorType, rows: int, k: int, random: np.random.Generator, size: float = 1.0) -> Bytes:
    """Random rows as a file keeps them, [rows][bytes]: every bit of a block is used, its numbers are about `size`."""
    if kind in OF_FLOATS:
        numbers = (random.standard_normal((rows, k)) * size).astype(np.float32)
        if kind is TensorType.F16:
            return numbers.astype(np.float16).view(np.uint8)
        return numbers.view(np.uint8) if kind is TensorType.F32 else _upper(numbers)
    weights, block = block_of(kind)
    raw = random.integers(0, 256, (rows, k // weights * block), np.uint8)
    return with_scales(kind, raw, random, size)


def with_scales(kind: TensorType, raw: Bytes, random: np.random.Generator, size: float = 1.0) -> Bytes:
    """Quantised rows with random numbers in place of each block's scales and minima."""
    changed = raw.reshape(-1, block_of(kind)[1]).copy()
    if kind is TensorType.MXFP4:
        changed[:, 0] = 123 + round(np.log2(size)) + random.integers(0, 4, len(changed), np.uint8)
    for at in HALVES.get(kind.name, ()):
        scales = random.uniform(0.3, 1.0, len(changed)) * random.choice((-1, 1), len(changed)) * size
        changed[:, at : at + 2] = (scales * _STEPS[kind.name]).astype(np.float16).view(np.uint8).reshape(-1, 2)
    return changed.reshape(raw.shape)


def _upper(numbers: Floats) -> Bytes:
    """The upper halves of floats: bfloat16."""
    return np.ascontiguousarray(numbers.view(np.uint16)[:, 1::2]).view(np.uint8)


_STEPS = {
    "Q4_0": 0.1, "Q4_1": 0.1, "Q5_0": 0.1, "Q5_1": 0.1, "Q8_0": 0.01, "Q2_K": 0.05, "Q3_K": 0.01, "Q4_K": 0.002,
    "Q5_K": 0.001, "Q6_K": 0.0005, "IQ4_NL": 0.01, "IQ4_XS": 0.0005,
}  # fmt: skip
"""What a block's numbers are, about, where its weights are about 1."""


def numbers(kind: TensorType, raw: Bytes) -> Floats:
    """What the `gguf` package makes of rows."""
    if kind is TensorType.BF16:
        whole: Floats = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        return whole
    found: Floats = gguf.quants.dequantize(raw, GGMLQuantizationType[kind.name]).astype(np.float32)
    return found


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix as a file keeps it, `raw` [outputs][bytes], and the numbers that it stands for, [outputs][k]."""

    kind: TensorType
    raw: Bytes
    numbers: Floats
    bias: Floats | None = None


def matrix(
    kind: TensorType, outputs: int, k: int, random: np.random.Generator, *, size: float = 1.0, bias: bool = False
) -> Matrix:
    raw = tensor(kind, outputs, k, random, size)
    added = random.standard_normal(outputs).astype(np.float32) if bias else None
    return Matrix(kind, raw, numbers(kind, raw), added)


def pack(
    library: ctypes.CDLL,
    source: Matrix,
    *,
    order: NDArray[np.int32] | None = None,
    scale: float = 1.0,
) -> tuple[MatrixStruct, tuple[object, ...]]:
    """Its structure, and what that points into."""
    outputs, k = source.numbers.shape if order is None else (len(order), source.numbers.shape[1])
    size = library.puna_packed_bytes(source.kind.value, outputs, k)
    assert size > 0
    raw, target = guarded(source.raw), guarded(size)
    target[:] = 0xA5
    fault = library.puna_pack(
        source.kind.value, raw.ctypes.data, raw.nbytes, outputs, k, None if order is None else order.ctypes.data,
        scale, target.ctypes.data, size, 0, -(-outputs // LANES),
    )  # fmt: skip
    assert fault == 0, fault
    bias = None
    if source.bias is not None:
        own = source.bias if order is None else np.where(order < 0, 0, source.bias[order]).astype(np.float32)
        bias = guarded(np.pad(own, (0, -outputs % LANES)))
    form = library.puna_format(source.kind.value)
    made = MatrixStruct(target.ctypes.data, bias.ctypes.data if bias is not None else None, size, form, outputs, k, 0)
    return made, (target, bias)


def product(library: ctypes.CDLL, packed: MatrixStruct, x: Floats) -> Floats:
    """Rows times a packed matrix: [rows][outputs]."""
    rows, k = x.shape
    padded = guarded(np.pad(x, ((0, 0), (0, -k % GROUP))).astype(np.float32))
    stride = packed.outputs + -packed.outputs % LANES
    out = guarded(rows * stride * 4)
    assert library.puna_product(ctypes.addressof(packed), padded.ctypes.data, rows, out.ctypes.data) == 0
    found: Floats = out.view(np.float32).reshape(rows, stride)[:, : packed.outputs].copy()
    return found


def as_bytes(x: NDArray[Any], together: int = GROUP) -> Doubles:
    """The same numbers as signed bytes hold them: 127 steps to the largest of those `together`, halves to even."""
    groups = x.astype(np.float32).reshape(*x.shape[:-1], -1, together)
    most = np.abs(groups).max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        back = np.where(most > 1e-30, np.float32(127) / most, np.float32(0)).astype(np.float32)
    steps = np.rint(groups.astype(np.float64) * back.astype(np.float64))
    scale = (most * np.float32(1 / 127)).astype(np.float64)
    found: Doubles = (steps * scale).reshape(x.shape)
    return found


# ------------------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A model with random weights. `windows`, `ropes`, `taps`: of one layer after another, over and over.

    `taps`: tokens that are convolved; 0: the layer attends. `linear`: if any, layers that convolve attend linearly, by
    so many heads of keys and of values, of `size`. `gated`: what attention saw is gated.
    `shapes`: of layers, over and over, (heads of keys, a head's size, width between gate and down), none: the model's.
    `shared`: how many of the last layers have no keys of their own, but those of the last of their shape that has.
    `additions`: numbers a token that each layer adds something of its own from, 0: none.
    """

    kind: TensorType = TensorType.F32
    embedding: TensorType = TensorType.F32
    layers: int = 2
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    head: int = 32
    between: int = 96
    vocabulary: int = 100
    activation: int = SILU
    cache: int = CACHE_HALVES
    windows: Sequence[int] = (0,)
    ropes: Sequence[int] = (0,)
    taps: Sequence[int] = (0,)
    linear: tuple[int, int] = (0, 0)
    size: int = 32
    gated: bool = False
    speeds: Sequence[float] = (10000.0,)
    pairs: int = 0
    magnitude: float = 1.0
    shapes: Sequence[tuple[int, int, int]] = ()
    shared: int = 0
    additions: int = 0
    scales: bool = False
    value_norms: bool = False
    head_norms: bool = False
    post_norms: bool = False
    sinks: bool = False
    biases: bool = False
    attention_cap: float = 0.0
    logit_cap: float = 0.0
    embedding_scale: float = 1.0
    experts: int = 0
    used: int = 2
    renormalise: bool = True
    share_scale: float = 1.0
    epsilon: float = 1e-5
    seed: int = 0

    def shape(self, layer: int) -> tuple[int, int, int]:
        return self.shapes[layer % len(self.shapes)] if self.shapes else (self.kv_heads, self.head, self.between)

    def keys_of(self, layer: int) -> int:
        """The layer whose keys and values it reads."""
        own = self.layers - self.shared
        return max(n for n in range(own) if self.shape(n)[:2] == self.shape(layer)[:2]) if layer >= own else layer


@cache
def weights(tiny: Tiny) -> dict[str, Any]:
    """Matrices and vectors by name; experts' matrices as lists."""
    random = np.random.default_rng(tiny.seed)

    def made(outputs: int, k: int, kind: TensorType = tiny.kind, size: float = 1.0) -> Matrix:
        return matrix(kind, outputs, k, random, size=size / k**0.5, bias=tiny.biases)

    def vector(size: int) -> Floats:
        return (1 + 0.2 * random.standard_normal(size)).astype(np.float32)

    found: dict[str, Any] = {
        "embedding": matrix(tiny.embedding, tiny.vocabulary, tiny.hidden, random),
        "output": matrix(tiny.kind, tiny.vocabulary, tiny.hidden, random, size=2 / tiny.hidden**0.5),
        "output_norm": vector(tiny.hidden),
    }
    if tiny.additions:
        numbers = tiny.layers * tiny.additions
        found["projection"] = matrix(tiny.kind, numbers, tiny.hidden, random, size=1 / tiny.hidden**0.5)
        found["projection_norm"] = vector(tiny.additions)
        found["inputs"] = matrix(tiny.embedding, tiny.vocabulary, numbers, random)
    for layer in range(tiny.layers):
        kv_heads, head, between = tiny.shape(layer)
        part = {
            "attention_norm": vector(tiny.hidden),
            "feed_norm": vector(tiny.hidden),
        }
        taps, (key_heads, value_heads) = taps_of(tiny, layer), tiny.linear
        if taps and value_heads:
            channels = (2 * key_heads + value_heads) * tiny.size
            part |= {
                "mixed": made(channels, tiny.hidden),
                "found_gate": made(value_heads * tiny.size, tiny.hidden),
                "beta": made(value_heads, tiny.hidden),
                "alpha": made(value_heads, tiny.hidden),
                "output": made(tiny.hidden, value_heads * tiny.size),
                "filter": random.standard_normal((taps, channels)).astype(np.float32),
                "decay": -np.exp(random.standard_normal(value_heads)).astype(np.float32),
                "norm": vector(tiny.size),
            }
        elif taps:
            part |= {name: made(tiny.hidden, tiny.hidden) for name in ("before", "after", "input", "output")}
            part["filter"] = random.standard_normal((taps, tiny.hidden)).astype(np.float32)
        else:
            part |= {
                "query": made(tiny.heads * head, tiny.hidden, size=2),
                "key": made(kv_heads * head, tiny.hidden, size=2),
                "value": made(kv_heads * head, tiny.hidden),
                "output": made(tiny.hidden, tiny.heads * head),
            }
            part |= {"attention_gate": made(tiny.heads * head, tiny.hidden)} if tiny.gated else {}
        if tiny.additions:
            part |= {
                "addition_gate": made(tiny.additions, tiny.hidden),
                "addition_output": made(tiny.hidden, tiny.additions),
                "addition_norm": vector(tiny.hidden),
            }
        if tiny.scales:
            part["scale"] = float(random.uniform(0.5, 1.5))
        if tiny.post_norms:
            part |= {"post_attention_norm": vector(tiny.hidden), "post_feed_norm": vector(tiny.hidden)}
        if tiny.head_norms and not taps:
            part |= {"query_norm": vector(head), "key_norm": vector(head)}
        if tiny.value_norms and not taps:
            part["value_norm"] = vector(head)
        if tiny.sinks and not taps:
            part["sinks"] = random.standard_normal(tiny.heads).astype(np.float32)
        count = tiny.experts or 1
        feed = {
            "gate": [made(between, tiny.hidden) for _ in range(count)],
            "up": [made(between, tiny.hidden) for _ in range(count)],
            "down": [made(tiny.hidden, between) for _ in range(count)],
        }
        part |= feed if tiny.experts else {name: matrices[0] for name, matrices in feed.items()}
        if tiny.experts:
            part["router"] = made(tiny.experts, tiny.hidden, TensorType.F32, 4.0)
        found[f"layer {layer}"] = part
    return found


def taps_of(tiny: Tiny, layer: int) -> int:
    return tiny.taps[layer % len(tiny.taps)]


def speeds_of(tiny: Tiny, which: int) -> Floats:
    head = max(tiny.shape(layer)[1] for layer in range(tiny.layers) if tiny.ropes[layer % len(tiny.ropes)] == which)
    half = np.arange(tiny.pairs or head // 2, dtype=np.float64)
    found: Floats = (tiny.speeds[which] ** (-2 * half / head)).astype(np.float32)
    return found


class Model:
    """A tiny model in a library, with `blocks` blocks and steps of `most_rows` rows at most."""

    def __init__(
        self,
        library: ctypes.CDLL,
        tiny: Tiny,
        *,
        threads: int = 1,
        blocks: int = 64,
        most_rows: int = 64,
        states: int = 0,
    ) -> None:
        self.library, self.tiny = library, tiny
        self._held: list[object] = []
        self.model, self.layers = self._structures(blocks, most_rows, states)
        self._why = ctypes.create_string_buffer(200)
        self.engine = library.puna_create(ctypes.addressof(self.model), threads, self._why, 200)
        assert self.engine, self._why.value
        weakref.finalize(self, library.puna_destroy, self.engine)

    def _hold(self, array: NDArray[Any]) -> int:
        copy = guarded(array)
        self._held.append(copy)
        return copy.ctypes.data

    def _pack(self, source: Matrix, order: NDArray[np.int32] | None = None) -> MatrixStruct:
        made, held = pack(self.library, source, order=order)
        self._held.append(held)
        return made

    def _addition(self, part: dict[str, Any]) -> int:
        made = AdditionStruct(
            gate=self._pack(part["addition_gate"]), output=self._pack(part["addition_output"]),
            norm=self._hold(part["addition_norm"]),
        )  # fmt: skip
        self._held.append(made)
        return ctypes.addressof(made)

    def _inputs(self) -> int:
        tiny, found = self.tiny, weights(self.tiny)
        rows = self._hold(found["inputs"].raw)
        made = InputsStruct(
            rows=rows, rows_bytes=found["inputs"].raw.nbytes, projection=self._pack(found["projection"]),
            norm=self._hold(found["projection_norm"]), type=tiny.embedding.value, width=tiny.additions, scale=2.0,
            share=0.7,
        )  # fmt: skip
        self._held.append(made)
        return ctypes.addressof(made)

    def _structures(self, blocks: int, most_rows: int, states: int) -> tuple[ModelStruct, ctypes.Array[LayerStruct]]:
        tiny, found = self.tiny, weights(self.tiny)
        layers = (LayerStruct * tiny.layers)()
        for number, layer in enumerate(layers):
            part = found[f"layer {number}"]
            layer.kv_heads, layer.head, layer.between = tiny.shape(number)
            stride = self.library.puna_block_bytes(tiny.cache, layer.kv_heads, layer.head)
            filled, owner = layer.head + -layer.head % GROUP, tiny.keys_of(number)
            for name, value in part.items():
                if not hasattr(layer, name) or (name in {"key", "value"} and owner != number):
                    continue
                if isinstance(value, Matrix):
                    order = None
                    if name in {"query", "key", "value", "attention_gate"} and filled != layer.head:
                        rows = np.arange(len(value.numbers), dtype=np.int32).reshape(-1, layer.head)
                        order = np.pad(rows, ((0, 0), (0, filled - layer.head)), constant_values=-1).reshape(-1)
                    setattr(layer, name, self._pack(value, order))
                elif isinstance(value, np.ndarray):
                    ends = filled - layer.head if name in {"query_norm", "key_norm", "value_norm"} else 0
                    setattr(layer, name, self._hold(np.pad(value, (0, ends))))
            layer.scale = part.get("scale", 0.0)
            if tiny.additions:
                layer.addition = self._addition(part)
            taps, (key_heads, value_heads) = taps_of(tiny, number), tiny.linear
            if taps and value_heads:
                layer.delta = self._delta(part, taps, states)
                stride = self.library.puna_delta_bytes(key_heads, value_heads, tiny.size)
            elif taps:
                layer.convolution = self._convolution(part, taps)
                stride = self.library.puna_convolution_bytes(tiny.hidden)
            if tiny.experts:
                layer.mixture = self._mixture(part)
            nothing = guarded(blocks * stride)
            nothing[:] = 0xFF  # no number: what was never written may not be read
            self._held.append(nothing)
            layer.cache, layer.cache_bytes, layer.cache_stride = nothing.ctypes.data, blocks * stride, stride
            if owner != number:
                layer.cache = layers[owner].cache
            layer.window = tiny.windows[number % len(tiny.windows)]
            layer.rope = tiny.ropes[number % len(tiny.ropes)]
        most = [max(tiny.shape(number)[place] for number in range(tiny.layers)) for place in range(3)]
        model = ModelStruct(
            layers=tiny.layers, hidden=tiny.hidden, heads=tiny.heads, kv_heads=most[0], head=most[1],
            between=most[2], vocabulary=tiny.vocabulary, most_rows=most_rows, context=blocks * BLOCK,
            blocks=blocks, states=states, activation=tiny.activation, ropes=len(tiny.speeds), cache_type=tiny.cache,
            epsilon=tiny.epsilon,
            attention_scale=most[1]**-0.5, attention_cap=tiny.attention_cap, logit_cap=tiny.logit_cap,
            embedding_scale=tiny.embedding_scale, embedding_type=tiny.embedding.value,
            embedding=self._hold(found["embedding"].raw), embedding_bytes=found["embedding"].raw.nbytes,
            output_norm=self._hold(found["output_norm"]), output=self._pack(found["output"]),
            layer=ctypes.addressof(layers), inputs=self._inputs() if tiny.additions else None,
        )  # fmt: skip
        for which in range(len(tiny.speeds)):
            speeds = speeds_of(tiny, which)
            model.rope[which].speeds, model.rope[which].pairs = self._hold(speeds), len(speeds)
            model.rope[which].magnitude = tiny.magnitude
        return model, layers

    def _delta(self, part: dict[str, Any], taps: int, states: int) -> int:
        (keys, values), size = self.tiny.linear, self.tiny.size
        state = self.library.puna_state_bytes(values, size)
        nothing = guarded(states * state)
        nothing[:] = 0xFF
        self._held.append(nothing)
        made = DeltaStruct(
            *(self._pack(part[name]) for name in ("mixed", "found_gate", "beta", "alpha")),
            self._hold(part["filter"]), self._hold(np.pad(part["decay"], (0, -values % LANES))),
            self._hold(part["norm"]), nothing.ctypes.data, nothing.nbytes, state, taps, keys, values, size,
        )  # fmt: skip
        self._held.append(made)
        return ctypes.addressof(made)

    def _convolution(self, part: dict[str, Any], taps: int) -> int:
        made = ConvolutionStruct(
            *(self._pack(part[name]) for name in ("before", "after", "input")), self._hold(part["filter"]), taps
        )
        self._held.append(made)
        return ctypes.addressof(made)

    def _mixture(self, part: dict[str, Any]) -> int:
        tiny = self.tiny
        made = MixtureStruct(
            router=self._pack(part["router"]), experts=tiny.experts, used=tiny.used,
            renormalise=tiny.renormalise, share_scale=tiny.share_scale,
        )  # fmt: skip
        for name in ("gate", "up", "down"):
            matrices = (MatrixStruct * tiny.experts)(*(self._pack(each) for each in part[name]))
            self._held.append(matrices)
            setattr(made, name, ctypes.addressof(matrices))
        self._held.append(made)
        return ctypes.addressof(made)

    def __call__(
        self,
        parts: Sequence[tuple[Sequence[int], int, Sequence[int]]],
        rows: Sequence[int],
        states: Sequence[tuple[int, int, int]] = (),
    ) -> Floats:
        """Logits of `rows`. A part is a sequence's next tokens, how many went before, and its blocks. `states`: of each
        its state, how many tokens that has absorbed, and is to have.
        """
        lists = [
            [token for tokens, _, _ in parts for token in tokens],
            [past for _, past, _ in parts],
            np.cumsum([0, *(len(tokens) for tokens, _, _ in parts)]),
            [block for _, _, blocks in parts for block in blocks],
            np.cumsum([0, *(len(blocks) for _, _, blocks in parts)]),
            rows,
            *zip(*states, strict=True),
        ]
        held = [guarded(np.array(each, np.int32)) for each in lists]
        stride = self.tiny.vocabulary + -self.tiny.vocabulary % LANES
        out = guarded(len(rows) * stride * 4)
        addresses = [each.ctypes.data for each in held]
        step = StepStruct(held[0].size // 4, len(parts), len(rows), *addresses[:6], out.ctypes.data, *addresses[6:])
        fault = self.library.puna_step(self.engine, ctypes.addressof(step), self._why, 200)
        assert fault == 0, self._why.value
        found: Floats = out.view(np.float32).reshape(len(rows), stride)[:, : self.tiny.vocabulary].copy()
        return found

    def all_rows(self, ids: Sequence[int], *, chunks: Sequence[int] = (), blocks: Sequence[int] = ()) -> Floats:
        """Logits of every position of one sequence, in chunks of those sizes and then of the largest that fit."""
        found, past, left = [], 0, list(chunks)
        blocks = blocks or range(-(-len(ids) // BLOCK))
        while past < len(ids):
            size = min(left.pop(0) if left else self.model.most_rows, len(ids) - past)
            found.append(self([(ids[past : past + size], past, blocks)], range(size)))
            past += size
        return np.concatenate(found)


# ---------------------------------------------------------------------------------------------------------- reference


@cache
def reference(tiny: Tiny, ids: tuple[int, ...]) -> Doubles:
    """Logits of every position of one sequence, in double precision, with the activations' bytes and the cache's
    numbers of 16 bits as the library has them.
    """
    found = weights(tiny)
    x = found["embedding"].numbers[np.array(ids)].astype(np.float64) * tiny.embedding_scale
    inputs = _inputs(tiny, ids, x) if tiny.additions else None
    cached: Cached = {}
    for number in range(tiny.layers):
        part = found[f"layer {number}"]
        y = _mixed(tiny, number, part, _normed(tiny, x, part["attention_norm"]), cached)
        x = x + (_normed(tiny, y, part["post_attention_norm"]) if tiny.post_norms else y)
        y = _feed_forward(tiny, part, _normed(tiny, x, part["feed_norm"]))
        x = x + (_normed(tiny, y, part["post_feed_norm"]) if tiny.post_norms else y)
        if inputs is not None:
            y = _times(_activated(tiny, _times(x, part["addition_gate"]), inputs[:, number]), part["addition_output"])
            x = x + _normed(tiny, y, part["addition_norm"])
        x = x * part.get("scale", 1.0)
    return _capped(_times(_normed(tiny, x, found["output_norm"]), found["output"]), tiny.logit_cap)


def _inputs(tiny: Tiny, ids: tuple[int, ...], x: Doubles) -> Doubles:
    """[position][layer][numbers] of what layers add of their own."""
    found = weights(tiny)
    projected = _times(x, found["projection"]).reshape(len(x), tiny.layers, tiny.additions)
    own = found["inputs"].numbers[np.array(ids)].reshape(projected.shape)
    inputs: Doubles = (_normed(tiny, projected, found["projection_norm"]) + 2.0 * own) * 0.7
    return inputs


def _times(x: Doubles, by: Matrix) -> Doubles:
    if by.kind not in OF_FLOATS:
        x = as_bytes(x)
    out: Doubles = x @ by.numbers.astype(np.float64).T
    return out if by.bias is None else out + by.bias


def _normed(tiny: Tiny, x: Doubles, weight: Floats) -> Doubles:
    normed: Doubles = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + tiny.epsilon) * weight
    return normed


def _capped(x: Doubles, cap: float) -> Doubles:
    return cap * np.tanh(x / cap) if cap else x


def _turned(tiny: Tiny, number: int, x: Doubles) -> Doubles:
    """Heads [position][head][size], each pair of neighbours turned by its position."""
    which = tiny.ropes[number % len(tiny.ropes)]
    if which < 0:
        return x
    speeds = speeds_of(tiny, which).astype(np.float64)
    angles = np.arange(len(x))[:, None, None] * speeds
    cosine, sine = np.cos(angles) * tiny.magnitude, np.sin(angles) * tiny.magnitude
    turned, n = x.copy(), 2 * len(speeds)
    even, odd = x[..., 0:n:2], x[..., 1:n:2]
    turned[..., 0:n:2], turned[..., 1:n:2] = even * cosine - odd * sine, odd * cosine + even * sine
    return turned


Cached = dict[int, tuple[Doubles, Doubles]]
"""Keys and values by layer."""


def _mixed(tiny: Tiny, number: int, part: dict[str, Any], x: Doubles, cached: Cached) -> Doubles:
    if not taps_of(tiny, number):
        return _attention(tiny, number, part, x, cached)
    return (_linear_attention if any(tiny.linear) else _convolution)(tiny, number, part, x)


def _convolved(x: Doubles, weights: Floats) -> Doubles:
    """weights: [taps][channels]."""
    padded = np.concatenate([np.zeros((len(weights) - 1, x.shape[1])), x.astype(np.float16)])
    found: Doubles = (np.lib.stride_tricks.sliding_window_view(padded, len(weights), axis=0) * weights.T).sum(axis=-1)
    return found


def _sigmoid(x: Doubles) -> Doubles:
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def _linear_attention(tiny: Tiny, number: int, part: dict[str, Any], x: Doubles) -> Doubles:
    (keys, values), size, count = tiny.linear, tiny.size, len(x)
    mixed = _convolved(_times(x, part["mixed"]), part["filter"])
    heads = (mixed * _sigmoid(mixed)).reshape(count, -1, size)
    query, key = (
        each / np.sqrt((each * each).sum(axis=-1, keepdims=True))
        for each in (heads[:, :keys], heads[:, keys : 2 * keys])
    )
    beta = _sigmoid(_times(x, part["beta"]))
    decay = np.exp(np.logaddexp(0, _times(x, part["alpha"])) * part["decay"])
    found = np.zeros((count, values, size))
    for head in range(values):
        matrix = np.zeros((size, size))
        for at in range(count):
            k, q = key[at, head % keys], query[at, head % keys]
            matrix = matrix * decay[at, head]
            matrix += np.outer((heads[at, 2 * keys + head] - matrix @ k) * beta[at, head], k)
            found[at, head] = matrix @ q / size**0.5
    gate = _times(x, part["found_gate"])
    return _times(_normed(tiny, found, part["norm"]).reshape(count, -1) * gate * _sigmoid(gate), part["output"])


def _convolution(tiny: Tiny, number: int, part: dict[str, Any], x: Doubles) -> Doubles:
    before, after, given = (_times(x, part[name]) for name in ("before", "after", "input"))
    return _times(after * _convolved(before * given, part["filter"]), part["output"])


def _attention(tiny: Tiny, number: int, part: dict[str, Any], x: Doubles, cached: Cached) -> Doubles:
    count, (kv_heads, size, _) = len(x), tiny.shape(number)
    query, key, value = (_times(x, part[name]).reshape(count, -1, size) for name in ("query", "key", "value"))
    if tiny.head_norms:
        query, key = _normed(tiny, query, part["query_norm"]), _normed(tiny, key, part["key_norm"])
    if tiny.value_norms:
        value = _normed(tiny, value, part["value_norm"])
    query, key = _turned(tiny, number, query), _turned(tiny, number, key)
    query = query * max(tiny.shape(each)[1] for each in range(tiny.layers)) ** -0.5
    if tiny.cache == CACHE_BYTES:
        query, key, value = (as_bytes(each, size) for each in (query, key, value))
    else:
        key, value = key.astype(np.float16).astype(np.float64), value.astype(np.float16).astype(np.float64)
    cached[number] = (key, value)
    key, value = cached[tiny.keys_of(number)]
    share, window = tiny.heads // kv_heads, tiny.windows[number % len(tiny.windows)]
    behind = np.arange(count)[:, None] - np.arange(count)
    hidden = (behind < 0) | ((behind >= window) if window else False)
    out = np.empty((count, tiny.heads, size))
    for head in range(tiny.heads):
        scores = _capped(query[:, head] @ key[:, head // share].T, tiny.attention_cap)
        scores = np.where(hidden, -np.inf, scores)
        if tiny.sinks:
            scores = np.concatenate([scores, np.full((count, 1), part["sinks"][head], np.float64)], axis=1)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        out[:, head] = shares[:, :count] @ value[:, head // share]
    if tiny.gated:
        out *= _sigmoid(_times(x, part["attention_gate"])).reshape(out.shape)
    return _times(out.reshape(count, -1), part["output"])


def _activated(tiny: Tiny, gate: Doubles, up: Doubles) -> Doubles:
    if tiny.activation == SILU:
        return gate * _sigmoid(gate) * up
    if tiny.activation == GELU:
        return 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) * up
    gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
    return gate * _sigmoid(1.702 * gate) * (up + 1)


def _feed_forward(tiny: Tiny, part: dict[str, Any], x: Doubles) -> Doubles:
    def through(rows: Doubles, gate: Matrix, up: Matrix, down: Matrix) -> Doubles:
        return _times(_activated(tiny, _times(rows, gate), _times(rows, up)), down)

    if not tiny.experts:
        return through(x, part["gate"], part["up"], part["down"])
    scores = _times(x, part["router"])
    chosen = np.argsort(-scores, axis=1, kind="stable")[:, : tiny.used]
    best = np.take_along_axis(scores, chosen, axis=1)
    over = best if tiny.renormalise else scores
    most = scores.max(axis=1, keepdims=True)
    shares = np.exp(best - most) / np.exp(over - most).sum(axis=1, keepdims=True) * tiny.share_scale
    out = np.zeros_like(x)
    for row, experts in enumerate(chosen):
        for share, expert in zip(shares[row], experts, strict=True):
            part_of = (part[name][expert] for name in ("gate", "up", "down"))
            out[row] += share * through(x[row : row + 1], *part_of)[0]
    return out
