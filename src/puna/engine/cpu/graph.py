"""Graph: the blocks that families are built of — projection, norm, rotation, attention … — each written once.

Knows the runtime's operations and no family's order. Tensors flow as [tokens, features] in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu.reader import Tensors
from puna.engine.cpu.rope import Rope, rope
from puna.engine.cpu.runtime import PagedAttention, ops, ov
from puna.engine.cpu.shape import Dimensions
from puna.engine.cpu.unpacked import Bundle, Linear, RowOrder

GraphNode: TypeAlias = Any
"""A value in the graph. The runtime has no types of its own for it."""

BLOCK_SIZE = 32
"""Tokens of one block of keys and values; the runtime's."""


class Graph:
    """Builds one model. Make values with its methods, then `finish`; its `constants` must outlive the model."""

    def __init__(
        self,
        shape: Dimensions,
        tensors: Tensors,
        bundles: Sequence[Bundle],
        linears: Mapping[str, Linear],
        *,
        order: RowOrder,
        num_ctx: int,
    ) -> None:
        self.shape = shape
        self.num_ctx = num_ctx
        self._tensors = tensors
        self._order = order
        self._bundle_of = {tensor.name: bundle for bundle in bundles for tensor in bundle.tensors}
        self._linears = linears
        self.constants: list[object] = []
        self._small: dict[tuple[str, tuple[int, ...], bytes], GraphNode] = {}
        self._sums: dict[tuple[str, int, int], GraphNode] = {}
        self._angles: dict[str, tuple[GraphNode, GraphNode]] = {}
        self._embeddings = _parameter("embeddings", [-1, shape.hidden], ov.Type.f32)
        self._positions = _parameter("positions", [-1], ov.Type.i32)
        self._steps = [_parameter(name, [-1], ov.Type.i32) for name in STEP_INPUTS]
        self._longest = _parameter("longest", [], ov.Type.i32)
        self._rows = _parameter("rows", [-1], ov.Type.i32)
        self._caches: list[GraphNode] = []

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._tensors

    def vector(self, tensor: str) -> NDArray[np.float32]:
        """The numbers of a small tensor."""
        return self._tensors.vector(tensor)

    # ---------------------------------------------------------------------------------------------------- blocks

    def embeddings(self) -> GraphNode:
        """The tokens' embeddings; they are looked up outside the graph, straight from the model's file."""
        return self._embeddings

    def norm(self, x: GraphNode, tensor: str) -> GraphNode:
        """Divide by the root mean square of the last axis, then scale."""
        mean = ops.reduce_mean(ops.power(x, self._floats([2])), self._whole([-1]), True)
        root = ops.sqrt(ops.add(mean, self._floats([self.shape.epsilon])))
        scaled = ops.multiply(x, ops.divide(self._floats([1]), root))
        return ops.multiply(scaled, self._floats(self._tensors.vector(tensor)))

    def head_norm(self, x: GraphNode, heads: int, tensor: str) -> GraphNode:
        """The same for each head by itself."""
        split = ops.reshape(x, self._whole([-1, heads, self.shape.head_size]), False)
        return ops.reshape(self.norm(split, tensor), self._whole([-1, heads * self.shape.head_size]), False)

    def project(self, x: GraphNode, *names: str) -> list[GraphNode]:
        """Multiply with each named weight, `<name>.weight`, and add `<name>.bias` where there is one."""
        wanted = [f"{name}.weight" for name in names]
        made: dict[str, GraphNode] = {}
        for tensor in wanted:
            if tensor not in made:
                made.update(self._projected(x, self._bundle_of[tensor]))
        return [self._with_bias(made[f"{name}.weight"], f"{name}.bias") for name in names]

    def rotate(self, x: GraphNode, heads: int, rope: Rope, kind: str) -> GraphNode:
        """Turn the pairs of each head by their position. `kind` names the rope; one name, one set of angles."""
        cosine, sine = self._angles_of(rope, kind)
        size, rotary = self.shape.head_size, self.shape.rotary
        x = ops.reshape(x, self._whole([-1, heads, 1, size]), False)
        rest = None
        if rotary < size:
            x, rest = ops.variadic_split(x, self._whole(3), self._whole([rotary, size - rotary])).outputs()
        first, second = self._slice(x, 0, rotary // 2), self._slice(x, rotary // 2, 2**31)
        turned = ops.concat([ops.multiply(second, self._floats([[[[-1]]]])), first], -1)
        y = ops.add(ops.multiply(x, cosine), ops.multiply(turned, sine))
        if rest is not None:
            y = ops.concat([y, rest], -1)
        return ops.reshape(y, self._whole([-1, heads * size]), False)

    def attend(self, query: GraphNode, key: GraphNode, value: GraphNode, *, scale: float, window: int = 0) -> GraphNode:
        """Attention over the paged cache, the next layer's each time it is called. `window` 0: over all before."""
        layer = len(self._caches) // 2
        caches = [_parameter(f"{part}_cache.{layer}", [-1, -1, -1, -1], ov.Type.dynamic) for part in ("key", "value")]
        self._caches += caches
        integers, floats = self._shared(np.zeros(0, np.int32)), self._shared(np.zeros(0, np.float32))
        off = self._shared(np.array(0, np.int32))
        # The order is the runtime's, release by release: features not used here (alibi, eviction, cross-attention
        # scores, sparse prefill, sinks …) are told by empty tensors.
        inputs = [
            query, key, value, *caches, *self._steps,
            self._floats(scale), self._shared(np.array(window, np.int32)), floats, self._longest,
            integers, integers, integers, floats, floats, off, off,
            self._shared(np.zeros((0, 0, 0, 0), np.float32)), off,
            integers, integers, integers, integers, self._shared(np.zeros(0, np.uint8)), integers,
        ]  # fmt: skip
        node = PagedAttention([x if isinstance(x, ov.Output) else x.output(0) for x in inputs])
        information = node.get_rt_info()
        for part in ("k", "v"):
            information[f"num_{part}_heads"] = self.shape.kv_heads
            information[f"{part}_head_size"] = self.shape.head_size
        return node.output(0)

    def gated(self, gate: GraphNode, up: GraphNode, *, gelu: bool = False) -> GraphNode:
        """The activated gate times the other half."""
        return ops.multiply(_gelu(gate) if gelu else ops.swish(gate), up)

    def add(self, x: GraphNode, y: GraphNode) -> GraphNode:
        return ops.add(x, y)

    def multiply(self, x: GraphNode, factor: float) -> GraphNode:
        return ops.multiply(x, self._floats([factor]))

    def split(self, x: GraphNode, widths: Sequence[int]) -> list[GraphNode]:
        """Columns of the given widths, one after another."""
        return list(ops.variadic_split(x, self._whole(1), self._whole(widths)).outputs())

    def wanted_rows(self, x: GraphNode) -> GraphNode:
        """Only the rows whose logits are asked for."""
        return ops.gather(x, self._rows, self._whole(0))

    def finish(self, logits: GraphNode) -> Any:
        """The model."""
        result = ops.result(logits)
        result.output(0).get_tensor().set_names({"logits"})
        inputs = [self._embeddings, self._positions, *self._steps, self._longest, self._rows, *self._caches]
        return ov.Model([result], inputs, self.shape.architecture)

    def rope(self, base: float, factors: str | None = None, *, scaled: bool = True) -> Rope:
        """The model's rope. `factors`: a tensor that divides the speeds. `scaled` False: nothing is squeezed."""
        scaling = self.shape.rope_scaling
        if not scaled:
            scaling = replace(scaling, kind="none")
        return rope(base, self.shape.rotary, scaling, None if factors is None else self.vector(factors))

    # --------------------------------------------------------------------------------------------------- insides

    def _projected(self, x: GraphNode, bundle: Bundle) -> dict[str, GraphNode]:
        y = self._multiplied(x, self._linears[bundle.name])
        if len(bundle.tensors) == 1:
            return {bundle.name: y}
        counts = [tensor.shape[1] for tensor in bundle.tensors]
        return {tensor.name: part for tensor, part in zip(bundle.tensors, self.split(y, counts), strict=True)}

    def _multiplied(self, x: GraphNode, linear: Linear) -> GraphNode:
        matrix = self._constant(linear.matrix, linear.type, linear.shape)
        if linear.scales is None:
            dense = matrix if linear.type == "f32" else ops.convert(matrix, "f32")
            return ops.matmul(x, dense, False, True)
        rows, groups, size = linear.shape
        numbers = ops.convert(matrix, "f32")
        if linear.zeros is not None:
            zeros = self._constant(linear.zeros.reshape(rows, groups, 1))
            numbers = ops.subtract(numbers, ops.convert(zeros, "f32"))
        numbers = ops.multiply(numbers, self._constant(linear.scales.reshape(rows, groups, 1)))
        y = ops.matmul(x, ops.reshape(numbers, self._whole([rows, groups * size]), False), False, True)
        if linear.rests is None:
            return y
        return ops.add(y, ops.matmul(self._group_sums(x, groups, size), self._constant(linear.rests), False, True))

    def _group_sums(self, x: GraphNode, groups: int, size: int) -> GraphNode:
        """The sum of each group of columns, made once for each input."""
        key = (_identity(x), groups, size)
        if key not in self._sums:
            split = ops.reshape(x, self._whole([0, groups, size]), True)
            self._sums[key] = ops.reduce_sum(split, self._whole([2]), False)
        return self._sums[key]

    def _with_bias(self, y: GraphNode, tensor: str) -> GraphNode:
        if tensor not in self._tensors:
            return y
        bias, order = self._tensors.vector(tensor), self._order(tensor)
        return ops.add(y, self._floats(bias if order is None else bias[order]))

    def _angles_of(self, rope: Rope, kind: str) -> tuple[GraphNode, GraphNode]:
        if kind not in self._angles:
            positions = ops.convert(ops.reshape(self._positions, self._whole([-1, 1, 1, 1]), False), "f32")
            angles = ops.multiply(positions, self._floats(rope.speeds.reshape(1, 1, 1, -1)))
            angles = ops.concat([angles, angles], -1)
            cosine, sine = ops.cos(angles), ops.sin(angles)
            if rope.magnitude != 1:
                cosine, sine = (ops.multiply(part, self._floats([rope.magnitude])) for part in (cosine, sine))
            self._angles[kind] = cosine, sine
        return self._angles[kind]

    def _slice(self, x: GraphNode, start: int, stop: int) -> GraphNode:
        return ops.slice(x, self._whole([start]), self._whole([stop]), self._whole([1]), self._whole([3]))

    def _whole(self, values: int | Sequence[int]) -> GraphNode:
        return self._shared(np.array(values, np.int64))

    def _floats(self, values: float | Sequence[object] | NDArray[np.float32]) -> GraphNode:
        return self._shared(np.array(values, np.float32))

    def _shared(self, array: NDArray[np.generic]) -> GraphNode:
        """A small constant, made once for each value: the fewer nodes, the faster a model is compiled."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._small:
            self._small[key] = ops.constant(array)
        return self._small[key]

    def _constant(
        self, array: NDArray[np.generic], type_: str | None = None, shape: tuple[int, ...] | None = None
    ) -> GraphNode:
        """Over the array's own memory, which is kept: a tensor over an array that is gone dangles in silence."""
        array = np.ascontiguousarray(array)
        if type_ is None or shape is None:
            tensor = ov.Tensor(array, shared_memory=True)
        else:
            tensor = ov.Tensor(array, ov.Shape(shape), getattr(ov.Type, type_))
        self.constants += [array, tensor]
        return ops.constant(tensor, shared_memory=True)


STEP_INPUTS = ("past", "begins", "blocks", "block_begins")
"""Inputs that say which rows belong to which sequence, and where its keys and values are."""


def _parameter(name: str, shape: list[int], type_: Any) -> GraphNode:
    parameter = ops.parameter(shape, type_)
    parameter.output(0).get_tensor().set_names({name})
    parameter.set_friendly_name(name)
    return parameter


def _identity(x: GraphNode) -> str:
    node = x.get_node() if isinstance(x, ov.Output) else x
    return f"{node.get_name()}:{x.get_index() if isinstance(x, ov.Output) else 0}"


def _gelu(x: GraphNode) -> GraphNode:
    return ops.gelu(x, "tanh")
