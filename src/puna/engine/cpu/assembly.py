"""Assembly: a file's tensors and a family's table, made into what the native library calls a model."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu.families.family import Pairs
from puna.engine.cpu.packing import GROUP, TILE, Floats, Order, Unpacked, floats, pack
from puna.engine.cpu.reader import Tensors
from puna.engine.cpu.rope import Rope, rope
from puna.engine.cpu.shape import Dimensions, LayerKind, LayerShape
from puna.engine.cpu.structures import (
    AdditionStruct,
    ConvolutionStruct,
    DeltaStruct,
    InputsStruct,
    LayerStruct,
    MatrixStruct,
    MixtureStruct,
    ModelStruct,
)
from puna.errors import LoadFailed, ModelFileError
from puna.model.ggml import TensorType
from puna.model.gguf import PROJECTOR_TENSORS


@dataclass(frozen=True, slots=True)
class Assembly:
    """`model` lacks its cache, its states, and how much a step may take. It points into `memory`, which outlives it.

    `deltas`: what layers of linear attention have, in their order.
    """

    model: ModelStruct
    layers: ctypes.Array[LayerStruct]
    deltas: tuple[DeltaStruct, ...]
    memory: tuple[object, ...]


def assemble(library: ctypes.CDLL, shape: Dimensions, tensors: Tensors, *, num_ctx: int, threads: int) -> Assembly:
    """Pack all weights. `num_ctx`: the longest a sequence will become.

    ModelFileError for a tensor that is missing or of another shape; LoadFailed for one that nothing here knows, or that
    cannot be packed.
    """
    builder = _Builder(library, shape, tensors)
    layers = (LayerStruct * len(shape.layers))()
    for number, layer in enumerate(layers):
        builder.layer(layer, number)
    model = builder.model(num_ctx)
    model.layer = ctypes.addressof(layers)
    further = tuple(f"blk.{len(shape.layers) + number}." for number in range(shape.further))
    # A projector's tensors among a model's own: the text is all that is run, and images are refused.
    unknown = {name for name in tensors.unread if not name.startswith((*further, *PROJECTOR_TENSORS))}
    if unknown:
        raise LoadFailed(f"the cpu engine knows no tensor '{min(unknown)}' of the family {shape.family.architecture}")
    packed = pack(library, builder.sources, threads=threads)
    for place, matrix in zip(builder.places, packed.matrices, strict=True):
        place(matrix)
    return Assembly(model, layers, tuple(builder.deltas), (tensors, builder.held, packed))


class _Builder:
    """Fills in structures. `sources`: matrices to be packed; `places`: what to do with each when it is. `held`: arrays
    that are pointed into.
    """

    def __init__(self, library: ctypes.CDLL, shape: Dimensions, tensors: Tensors) -> None:
        self._library = library
        self._shape = shape
        self._tensors = tensors
        self.sources: list[Unpacked] = []
        self.places: list[Callable[[MatrixStruct], None]] = []
        self.held: list[object] = []
        self.deltas: list[DeltaStruct] = []
        self._ropes: list[Rope] = []

    # ------------------------------------------------------------------------------------------------------ the whole

    def model(self, num_ctx: int) -> ModelStruct:
        shape, tensors = self._shape, self._tensors
        vocabulary = self._vocabulary()
        info, rows = tensors.info("token_embd.weight"), tensors.bytes("token_embd.weight")
        model = ModelStruct(
            layers=len(shape.layers),
            hidden=shape.hidden,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head=shape.head_size,
            between=shape.feed_forward,
            vocabulary=vocabulary,
            context=max(num_ctx, shape.context),
            activation=shape.family.activation.value,
            epsilon=shape.epsilon,
            attention_scale=shape.attention_scale,
            attention_cap=shape.attention_cap,
            logit_cap=shape.logit_cap,
            embedding_scale=shape.embedding_scale,
            embedding_type=info.type.value,
            embedding=rows.ctypes.data,
            embedding_bytes=rows.nbytes,
            output_norm=self._vector(f"{shape.family.norms.output}.weight", shape.hidden),
        )
        head = "output" if "output.weight" in tensors else "token_embd"
        place = partial(setattr, model, "output")
        self._matrix(place, head, vocabulary, shape.hidden, scale=1 / shape.logit_divisor)
        for number, found in enumerate(self._all_ropes(num_ctx)):
            model.rope[number].speeds = self._hold(found.speeds)
            model.rope[number].pairs = len(found.speeds)
            model.rope[number].magnitude = found.magnitude
            model.ropes = number + 1
        if shape.additions:
            model.inputs = self._inputs(vocabulary)
        return model

    def _inputs(self, vocabulary: int) -> int:
        """Of the layers' additions: a token's row of the file for all layers, and its embedding, projected."""
        shape, name = self._shape, "per_layer_token_embd.weight"
        numbers = len(shape.layers) * shape.additions
        info, rows = self._tensors.info(name, numbers, vocabulary), self._tensors.bytes(name)
        if shape.additions % info.type.block_size:
            raise LoadFailed(f"the cpu engine cannot part '{name}' in {info.type.name} into {shape.additions} a layer")
        inputs = InputsStruct(
            rows=rows.ctypes.data,
            rows_bytes=rows.nbytes,
            norm=self._vector("per_layer_proj_norm.weight", shape.additions),
            type=info.type.value,
            width=shape.additions,
            scale=math.sqrt(shape.additions),
            share=math.sqrt(0.5),
        )
        place, scale = partial(setattr, inputs, "projection"), 1 / math.sqrt(shape.hidden)
        self._matrix(place, "per_layer_model_proj", numbers, shape.hidden, scale=scale)
        self.held.append(inputs)
        return ctypes.addressof(inputs)

    def _vocabulary(self) -> int:
        info = self._tensors.info("token_embd.weight")
        if len(info.shape) != 2:
            raise ModelFileError("the model file's tensor 'token_embd.weight' has not two dimensions")
        self._tensors.info("token_embd.weight", self._shape.hidden, info.shape[1])
        return info.shape[1]

    def _all_ropes(self, num_ctx: int) -> list[Rope]:
        """The one of most layers, and that of layers with a window, if it is another."""
        shape = self._shape
        factors = self._factors(num_ctx)
        found = [rope(shape.rope_base, shape.rotary, shape.rope_scaling, factors)]
        if self._own_rope:
            scaled = shape.window_scaling == shape.rope_scaling
            factors = factors if scaled else None
            found.append(rope(shape.window_base, shape.window_rotary, shape.window_scaling, factors))
        return found

    @property
    def _own_rope(self) -> bool:
        """Layers with a window turn at other speeds."""
        shape = self._shape
        others = (shape.rope_base, shape.rotary, shape.rope_scaling)
        return (shape.window_base, shape.window_rotary, shape.window_scaling) != others

    def _factors(self, num_ctx: int) -> Floats | None:
        """Divisors of speeds: the same for all contexts, or one set up to the first context and one beyond."""
        shape = self._shape
        beyond = num_ctx > shape.rope_scaling.original_context
        found: dict[str, Floats] = {}
        for name in ("rope_freqs", "rope_factors_short", "rope_factors_long"):
            if f"{name}.weight" in self._tensors:
                found[name] = self._numbers(f"{name}.weight", shape.rotary // 2)
                if not (found[name] != 0).all():
                    raise ModelFileError(f"the model file's tensor '{name}.weight' holds a zero")
        return found.get("rope_freqs", found.get(f"rope_factors_{'long' if beyond else 'short'}"))

    # ---------------------------------------------------------------------------------------------------- one layer

    def layer(self, layer: LayerStruct, number: int) -> None:
        shape, family, block = self._shape, self._shape.family, f"blk.{number}"
        wanted = shape.layers[number]
        layer.kv_heads, layer.head, layer.between = wanted.kv_heads, wanted.head_size, wanted.feed_forward
        norms = {
            "attention_norm": family.norms.attention,
            "post_attention_norm": family.norms.after_attention,
            "feed_norm": family.norms.feed,
            "post_feed_norm": family.norms.after_feed,
        }
        for field, name in norms.items():
            if name is not None:
                setattr(layer, field, self._vector(f"{block}.{name}.weight", shape.hidden))
        if wanted.kind is LayerKind.CONVOLUTION:
            self._convolution(layer, block)
        elif wanted.kind is LayerKind.LINEAR:
            self._linear_attention(layer, block)
        else:
            self._attention(layer, block, wanted, own_keys=wanted.keys_of == number)
        if family.experts is None or family.experts.beside:
            self._feed_forward(layer, block, wanted.feed_forward)
        if shape.experts and (not family.own_shapes or f"{block}.ffn_gate_inp.weight" in self._tensors):
            self._mixture(layer, block)
        layer.window = wanted.window
        layer.rope = -1 if not wanted.turned else int(bool(wanted.window) and self._own_rope)
        if shape.additions:
            self._addition(layer, block)
        if family.own_shapes and f"{block}.layer_output_scale.weight" in self._tensors:
            layer.scale = float(self._numbers(f"{block}.layer_output_scale.weight", 1)[0])
            if not layer.scale:
                raise LoadFailed(f"the cpu engine cannot scale what leaves layer {number} by 0")

    def _attention(self, layer: LayerStruct, block: str, wanted: LayerShape, *, own_keys: bool) -> None:
        shape, family = self._shape, self._shape.family
        size, rotary = wanted.head_size, shape.window_rotary if wanted.window else shape.rotary
        if family.head_norms:
            layer.query_norm = self._head_norm(f"{block}.attn_q_norm.weight", size, rotary)
            if own_keys:
                layer.key_norm = self._head_norm(f"{block}.attn_k_norm.weight", size, rotary)
        if family.value_norms and own_keys:
            layer.value_norm = self._hold(np.pad(np.ones(size, np.float32), (0, -size % GROUP)))
        if family.sinks:
            layer.sinks = self._vector(f"{block}.attn_sinks.weight", shape.heads)
        heads = (shape.heads, wanted.kv_heads, wanted.kv_heads)
        values = f"{block}.attn_v.weight" in self._tensors or not family.value_norms
        names = ("attn_q", "attn_k", "attn_v" if values else "attn_k")
        if family.gated:
            self._gated_queries(layer, block, size, rotary)
        fused, first = f"{block}.attn_qkv.weight" in self._tensors, 0
        for field, name, count in zip(("query", "key", "value"), names, heads, strict=True):
            if field == "query" and family.gated:
                continue
            if field != "query" and not own_keys:
                self._unused(f"{block}.{name}")
                continue
            order = self._order(count, size, rotary if field != "value" else 0, first)
            tensor, rows = ("attn_qkv", sum(heads) * size) if fused else (name, count * size)
            self._matrix(
                partial(setattr, layer, field), f"{block}.{tensor}", count * size, shape.hidden, order, rows=rows
            )
            first += count * size if fused else 0
        if not own_keys:
            self._unused(f"{block}.attn_k_norm")
        place = partial(setattr, layer, "output")
        self._matrix(place, f"{block}.attn_output", shape.hidden, shape.heads * size, scale=shape.residual_scale)

    def _head_norm(self, name: str, size: int, rotary: int) -> int:
        """In the order of a head's rows, with zeros to whole groups."""
        numbers = self._numbers(name, size)[self._within_head(size, rotary)]
        return self._hold(np.pad(np.ascontiguousarray(numbers), (0, -size % GROUP)))

    def _unused(self, name: str) -> None:
        """A layer that reads another's keys may have some of its own in the file; nobody asks for them."""
        if f"{name}.weight" in self._tensors:
            self._tensors.info(f"{name}.weight")

    def _addition(self, layer: LayerStruct, block: str) -> None:
        shape = self._shape
        addition = AdditionStruct(norm=self._vector(f"{block}.post_norm.weight", shape.hidden))
        self._matrix(partial(setattr, addition, "gate"), f"{block}.inp_gate", shape.additions, shape.hidden)
        self._matrix(partial(setattr, addition, "output"), f"{block}.proj", shape.hidden, shape.additions)
        self.held.append(addition)
        layer.addition = ctypes.addressof(addition)

    def _gated_queries(self, layer: LayerStruct, block: str, size: int, rotary: int) -> None:
        """Of each head first its queries, then what gates its outcome."""
        shape = self._shape
        outputs, begins = shape.heads * size, 2 * size * np.arange(shape.heads)[:, None]
        for field, within in (
            ("query", self._within_head(size, rotary)),
            ("attention_gate", np.arange(size, 2 * size)),
        ):
            order = _filled(begins + within)
            place = partial(setattr, layer, field)
            self._matrix(place, f"{block}.attn_q", outputs, shape.hidden, order, rows=2 * outputs)

    def _linear_attention(self, layer: LayerStruct, block: str) -> None:
        shape, linear = self._shape, self._shape.linear
        assert linear is not None
        found = linear.values * linear.size
        decay = self._numbers(f"{block}.ssm_a", linear.values)
        delta = DeltaStruct(
            filter=self._filter(f"{block}.ssm_conv1d.weight", linear.channels),
            decay=self._hold(np.pad(decay, (0, -len(decay) % TILE))),
            norm=self._vector(f"{block}.ssm_norm.weight", linear.size),
            taps=shape.taps,
            keys=linear.keys,
            values=linear.values,
            size=linear.size,
        )
        steps = self._numbers(f"{block}.ssm_dt.bias", linear.values)
        self._matrix(partial(setattr, delta, "mixed"), f"{block}.attn_qkv", linear.channels, shape.hidden)
        self._matrix(partial(setattr, delta, "gate"), f"{block}.attn_gate", found, shape.hidden)
        self._matrix(partial(setattr, delta, "beta"), f"{block}.ssm_beta", linear.values, shape.hidden)
        self._matrix(partial(setattr, delta, "alpha"), f"{block}.ssm_alpha", linear.values, shape.hidden, bias=steps)
        place = partial(setattr, layer, "output")
        self._matrix(place, f"{block}.ssm_out", shape.hidden, found, scale=shape.residual_scale)
        self.deltas.append(delta)
        layer.delta = ctypes.addressof(delta)

    def _filter(self, name: str, channels: int) -> int:
        """A convolution's weights, token by token, which a file has channel by channel."""
        taps = self._shape.taps
        return self._hold(np.ascontiguousarray(self._numbers(name, taps, channels).reshape(channels, taps).T))

    def _convolution(self, layer: LayerStruct, block: str) -> None:
        shape, name = self._shape, f"{block}.shortconv"
        convolution = ConvolutionStruct(filter=self._filter(f"{name}.conv.weight", shape.hidden), taps=shape.taps)
        for number, part in enumerate(("before", "after", "input")):
            order = np.arange(number * shape.hidden, (number + 1) * shape.hidden, dtype=np.int32)
            place = partial(setattr, convolution, part)
            self._matrix(place, f"{name}.in_proj", shape.hidden, shape.hidden, order, rows=3 * shape.hidden)
        place = partial(setattr, layer, "output")
        self._matrix(place, f"{name}.out_proj", shape.hidden, shape.hidden, scale=shape.residual_scale)
        self.held.append(convolution)
        layer.convolution = ctypes.addressof(convolution)

    def _feed_forward(self, layer: LayerStruct, block: str, width: int) -> None:
        shape = self._shape
        if f"{block}.ffn_gate.weight" in self._tensors:
            self._matrix(partial(setattr, layer, "gate"), f"{block}.ffn_gate", width, shape.hidden)
            self._matrix(partial(setattr, layer, "up"), f"{block}.ffn_up", width, shape.hidden)
        else:
            for field, first in (("gate", 0), ("up", width)):
                order = np.arange(first, first + width, dtype=np.int32)
                place = partial(setattr, layer, field)
                self._matrix(place, f"{block}.ffn_up", width, shape.hidden, order, rows=2 * width)
        place = partial(setattr, layer, "down")
        self._matrix(place, f"{block}.ffn_down", shape.hidden, width, scale=shape.residual_scale)

    def _mixture(self, layer: LayerStruct, block: str) -> None:
        shape, experts = self._shape, self._shape.family.experts
        assert experts is not None
        mixture = MixtureStruct(
            experts=shape.experts,
            used=shape.used,
            renormalise=experts.renormalise,
            share_scale=shape.share_scale,
            between=shape.expert_width,
        )
        if experts.beside:
            mixture.norm = self._vector(f"{block}.pre_ffw_norm_2.weight", shape.hidden)
            mixture.post_norm = self._vector(f"{block}.post_ffw_norm_2.weight", shape.hidden)
            mixture.plain_post_norm = self._vector(f"{block}.post_ffw_norm_1.weight", shape.hidden)
            scales = self._numbers(f"{block}.ffn_gate_inp.scale", shape.hidden) / np.float32(math.sqrt(shape.hidden))
            mixture.router_norm = self._hold(scales)
        self._router(mixture, f"{block}.ffn_gate_inp")
        width, down = shape.expert_width, f"{block}.ffn_down_exps"
        if (both := f"{block}.ffn_gate_up_exps") + ".weight" in self._tensors:
            for part, first in (("gate", 0), ("up", width)):
                order = np.arange(first, first + width, dtype=np.int32)
                setattr(mixture, part, self._experts(both, width, shape.hidden, order, rows=2 * width))
        else:
            for part in ("gate", "up"):
                setattr(mixture, part, self._experts(f"{block}.ffn_{part}_exps", width, shape.hidden))
        scaled = experts.beside and f"{down}.scale" in self._tensors
        each = self._numbers(f"{down}.scale", shape.experts) if scaled else None
        mixture.down = self._experts(down, shape.hidden, width, scales=each)
        self.held.append(mixture)
        layer.mixture = ctypes.addressof(mixture)

    def _router(self, mixture: MixtureStruct, name: str) -> None:
        """Kept in floats, whatever the file has: who is chosen hangs on small differences."""
        shape = self._shape
        numbers = self._numbers(f"{name}.weight", shape.hidden, shape.experts)
        source = Unpacked(
            name=f"{name}.weight",
            type=TensorType.F32,
            data=numbers.view(np.uint8).reshape(-1),
            outputs=shape.experts,
            k=shape.hidden,
            bias=self._bias(name, shape.experts, None),
        )
        self._add(partial(setattr, mixture, "router"), source)

    def _experts(
        self,
        name: str,
        outputs: int,
        k: int,
        order: Order | None = None,
        *,
        rows: int | None = None,
        scales: Floats | None = None,
    ) -> int:
        """All experts' matrices of one kind, which lie one after another in the file; gives their address.

        `order`: which of an expert's `rows`, None: all. `scales`: one an expert.
        """
        count, tensors = self._shape.experts, self._tensors
        info = tensors.info(f"{name}.weight", k, rows or outputs, count)
        data = tensors.bytes(f"{name}.weight").reshape(count, -1)
        biases = None
        if f"{name}.bias" in tensors:
            biases = self._numbers(f"{name}.bias", outputs, count).reshape(count, outputs)
        matrices = (MatrixStruct * count)()
        for expert in range(count):
            source = Unpacked(
                name=f"{name}.weight",
                type=info.type,
                data=data[expert],
                outputs=outputs,
                k=k,
                order=order,
                bias=None if biases is None else biases[expert],
                scale=1.0 if scales is None else float(scales[expert]),
            )
            self._add(partial(matrices.__setitem__, expert), source)
        self.held.append(matrices)
        return ctypes.addressof(matrices)

    # ------------------------------------------------------------------------------------------------------- pieces

    def _matrix(
        self,
        place: Callable[[MatrixStruct], None],
        name: str,
        outputs: int,
        k: int,
        order: Order | None = None,
        *,
        rows: int | None = None,
        scale: float = 1.0,
        bias: Floats | None = None,
    ) -> None:
        """`<name>.weight`, of `rows` rows (None: `outputs`), and `bias`, or `<name>.bias` where there is one."""
        info = self._tensors.info(f"{name}.weight", k, rows or outputs)
        source = Unpacked(
            name=info.name,
            type=info.type,
            data=self._tensors.bytes(info.name),
            outputs=outputs if order is None else len(order),
            k=k,
            order=order,
            bias=self._bias(name, rows or outputs, order) if bias is None else bias,
            scale=scale,
        )
        self._add(place, source)

    def _add(self, place: Callable[[MatrixStruct], None], source: Unpacked) -> None:
        self.sources.append(source)
        self.places.append(place)

    def _bias(self, name: str, rows: int, order: Order | None) -> Floats | None:
        if f"{name}.bias" not in self._tensors:
            return None
        numbers = self._numbers(f"{name}.bias", rows)
        return numbers if order is None else np.where(order < 0, np.float32(0), numbers[order])

    def _order(self, heads: int, size: int, rotary: int, first: int) -> Order | None:
        """Rows of heads, beginning with row `first`, each filled up with rows of zeros (-1) to whole groups. `rotary`:
        how many elements of a head are turned. None: as they lie in a tensor of their own.
        """
        turned = rotary and self._shape.family.pairs is Pairs.HALVES
        if not (turned or first or size % GROUP):
            return None
        rows = first + np.arange(heads)[:, None] * size + self._within_head(size, rotary)
        return _filled(rows)

    def _within_head(self, size: int, rotary: int) -> NDArray[np.intp]:
        """The order of a head's elements in which the two of each pair are neighbours, as the library turns them."""
        order = np.arange(size)
        if self._shape.family.pairs is Pairs.HALVES:
            order[:rotary] = order[:rotary].reshape(2, -1).T.reshape(-1)
        return order

    def _vector(self, name: str, size: int) -> int:
        return self._hold(self._numbers(name, size))

    def _numbers(self, name: str, *shape: int) -> Floats:
        """The numbers of a small tensor, of that `shape` (as ggml has it), one after another."""
        info = self._tensors.info(name, *shape)
        rows = int(np.prod(shape[1:], dtype=np.int64))
        numbers: Floats = floats(self._library, name, info.type, self._tensors.bytes(name), rows, shape[0])
        return numbers.reshape(-1)

    def _hold(self, array: NDArray[np.float32]) -> int:
        """Its address; it is kept."""
        self.held.append(array)
        return array.ctypes.data


def _filled(rows: NDArray[np.intp]) -> Order:
    """Heads' rows, [heads][size], one after another, each filled up with rows of zeros (-1) to whole groups."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % GROUP)), constant_values=-1).reshape(-1).astype(np.int32)
