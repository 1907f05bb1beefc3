"""Dimensions: the numbers of a model that its family's table and its file's header give together. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from puna.engine.cpu.families import FAMILIES
from puna.engine.cpu.families.family import Family
from puna.errors import ModelFileError
from puna.model.gguf import Header

MOST = 1 << 24
"""Of any count or width that a header names. Products of two of them fit 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How positions beyond the trained context are squeezed. `kind`: none, linear, yarn or longrope."""

    kind: str
    factor: float
    attention_factor: float
    original_context: int
    fast: float
    slow: float


class LayerKind(Enum):
    """How a layer looks at other tokens."""

    ATTENTION = "attention"
    CONVOLUTION = "convolution"
    LINEAR = "linear attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """`window`: how many positions a row sees, itself included; 0: all. `turned`: it is told positions.

    `keys_of`: the layer whose keys and values it reads, its own number if they are its own. Sizes as of Dimensions.
    """

    kind: LayerKind
    window: int
    turned: bool
    keys_of: int
    kv_heads: int
    head_size: int
    feed_forward: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearShape:
    """Heads of linear attention, all of `size`: of queries and of keys, and of values, i of which has key i % keys."""

    keys: int
    values: int
    size: int

    @property
    def channels(self) -> int:
        """What is convolved of each token."""
        return (2 * self.keys + self.values) * self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """Counts and sizes in elements, the most that any layer has. `rotary`: how many elements of a head are rotated;
    `window_rotary`: of one in a layer with a window.

    `feed_forward`: the width between gate and down; `expert_width`: of one expert where there are `experts`, of which a
    row takes `used`, their shares multiplied by `share_scale`. `taps`: how many tokens a convolution sees, itself
    included; 0 where there is none. `further`: blocks behind the layers, which foretell tokens and are not run.
    `window_base`: of the rope of layers with a window. `additions`: the width of what each layer adds of its own. Caps,
    additions and experts are 0 where there are none.
    """

    family: Family
    layers: tuple[LayerShape, ...]
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    rotary: int
    window_rotary: int
    feed_forward: int
    experts: int
    expert_width: int
    used: int
    share_scale: float
    taps: int
    linear: LinearShape | None
    further: int
    context: int
    epsilon: float
    rope_base: float
    rope_scaling: RopeScaling
    window_base: float
    window_scaling: RopeScaling
    attention_scale: float
    attention_cap: float
    logit_cap: float
    embedding_scale: float
    residual_scale: float
    logit_divisor: float
    additions: int


def read_shape(header: Header) -> Dimensions:
    """ModelFileError when the header does not say enough, or what cannot be."""
    family = FAMILIES[header.architecture]
    facts = _Facts(header)
    blocks, further = facts.whole("block_count"), facts.whole("nextn_predict_layers", 0, least=0)
    layers = blocks - further
    if not 0 < layers <= _MOST_LAYERS:
        raise ModelFileError(f"the model file names {layers} layers")
    hidden, heads = facts.whole("embedding_length"), facts.whole("attention.head_count")
    head_size = facts.whole("attention.key_length", hidden // heads)
    context = facts.whole("context_length")
    base = facts.real("rope.freq_base", 10000.0, above=1.0)
    scaling = _rope_scaling(facts, context)
    windows, caps = family.windows, family.caps
    mixture = family.experts is not None and (not family.experts.beside or facts.whole("expert_count", 0, least=0) > 0)
    own_base = windows.base if windows is not None else None
    width = hidden // heads if layers == family.wide else head_size
    rotary = facts.whole("rope.dimension_count", head_size)
    each = _layers(family, facts, layers, heads, head_size)
    shape = Dimensions(
        family=family,
        layers=each,
        hidden=hidden,
        heads=heads,
        kv_heads=max(layer.kv_heads for layer in each),
        head_size=max(layer.head_size for layer in each),
        rotary=rotary,
        window_rotary=facts.whole("rope.dimension_count_swa", rotary) if family.own_shapes else rotary,
        feed_forward=max(layer.feed_forward for layer in each),
        experts=facts.whole("expert_count") if mixture else 0,
        expert_width=facts.whole("expert_feed_forward_length") if mixture else 0,
        used=facts.whole("expert_used_count") if mixture else 0,
        share_scale=(facts.real("expert_weights_scale", 0.0) if mixture else 0.0) or 1.0,
        taps=_taps(family, facts),
        linear=_linear(facts) if family.linear else None,
        further=further,
        context=context,
        epsilon=facts.real("attention.layer_norm_rms_epsilon"),
        rope_base=base,
        rope_scaling=scaling,
        window_base=facts.real("rope.freq_base_swa", own_base or base, above=1.0) if windows else base,
        window_scaling=scaling if own_base is None else _UNSCALED,
        attention_scale=1.0 if family.unscaled else facts.real("attention.scale", 0.0) or 1 / math.sqrt(width),
        attention_cap=facts.real("attn_logit_softcapping", caps.attention) if caps else 0.0,
        logit_cap=facts.real("final_logit_softcapping", caps.logits) if caps else 0.0,
        embedding_scale=_embedding_scale(family, facts, hidden),
        residual_scale=(facts.real("residual_scale", 0.0) if family.scales else 0.0) or 1.0,
        logit_divisor=(facts.real("logit_scale", 0.0) if family.scales else 0.0) or 1.0,
        additions=facts.whole("embedding_length_per_layer_input", 0, least=0) if family.own_shapes else 0,
    )
    _check(shape)
    return shape


_UNSCALED = RopeScaling(kind="none", factor=1.0, attention_factor=1.0, original_context=1, fast=32.0, slow=1.0)


def _layers(family: Family, facts: _Facts, count: int, heads: int, head_size: int) -> tuple[LayerShape, ...]:
    windows, size = family.windows, 0
    if windows is not None:
        size = facts.whole("attention.sliding_window", windows.size)
    near = _with_windows(family, facts, count)
    keys, widths = _heads_of_keys(family, facts, count, heads), _widths(family, facts, count)
    near_size = facts.whole("attention.key_length_swa", head_size) if family.own_shapes else head_size
    sizes = [near_size if each else head_size for each in near]
    own = count - (facts.whole("attention.shared_kv_layers", 0, least=0) if family.own_shapes else 0)
    turned = facts.flag("rope.scaling.finetuned", True) if family.scales else True
    interval = facts.whole("full_attention_interval", family.linear.period) if family.linear else 1

    def kind(number: int) -> LayerKind:
        if (number + 1) % interval:
            return LayerKind.LINEAR
        return LayerKind.ATTENTION if keys[number] else LayerKind.CONVOLUTION

    return tuple(
        LayerShape(
            kind=kind(number),
            window=size if near[number] else 0,
            turned=turned and (not family.unturned or (number + 1) % family.unturned != 0),
            keys_of=number if number < own else _keys_of(number, near[:own], near),
            kv_heads=keys[number],
            head_size=sizes[number],
            feed_forward=widths[number],
        )
        for number in range(count)
    )


def _with_windows(family: Family, facts: _Facts, count: int) -> Sequence[bool]:
    """Which layers see the last positions only."""
    if family.windows is None:
        return (False,) * count
    if family.own_shapes and (found := facts.flags("attention.sliding_window_pattern", count)) is not None:
        return found
    period = facts.whole("attention.sliding_window_pattern", family.windows.period)
    return tuple(bool(number % period) for number in range(1, count + 1))


def _heads_of_keys(family: Family, facts: _Facts, layers: int, heads: int) -> Sequence[int]:
    """Of each layer: the same number in all that attend, 0 in those that convolve; or what each has of its own."""
    if not (family.convolutions or family.own_shapes):
        return (facts.whole("attention.head_count_kv", heads),) * layers
    found = facts.each("attention.head_count_kv", layers)
    if family.own_shapes and (0 in found or any(heads % each for each in found)):
        raise ModelFileError(f"the model file has {heads} heads for {', '.join(map(str, sorted(set(found))))} of keys")
    if family.convolutions and len(set(found) - {0}) != 1:
        raise ModelFileError("the model file's layers have not all as many heads of keys")
    return found


def _taps(family: Family, facts: _Facts) -> int:
    if family.linear:
        return facts.whole("ssm.conv_kernel")
    return facts.whole("shortconv.l_cache") if family.convolutions else 0


def _linear(facts: _Facts) -> LinearShape:
    found = LinearShape(
        keys=facts.whole("ssm.group_count"),
        values=facts.whole("ssm.time_step_rank"),
        size=facts.whole("ssm.state_size"),
    )
    inner = facts.whole("ssm.inner_size")
    if found.values % found.keys or found.values * found.size != inner:
        heads = f"{found.keys} heads of keys of {found.size} for {found.values} heads of values"
        raise ModelFileError(f"the model file has {heads}, together {inner}")
    if found.values > _MOST_HEADS:
        raise ModelFileError(f"the model file names {found.values} heads of values")
    return found


_MOST_HEADS = 1 << 12


def _widths(family: Family, facts: _Facts, layers: int) -> Sequence[int]:
    """Between gate and down, in each layer."""
    if family.own_shapes:
        return facts.each("feed_forward_length", layers)
    in_place = family.experts is not None and not family.experts.beside
    return (facts.whole("expert_feed_forward_length" if in_place else "feed_forward_length"),) * layers


def _keys_of(number: int, own: Sequence[bool], near: Sequence[bool]) -> int:
    """The last layer with keys of its own that has a window, or none, as layer `number`."""
    for other in reversed(range(len(own))):
        if own[other] == near[number]:
            return other
    raise ModelFileError(f"no layer of the model file has keys for layer {number}")


_MOST_LAYERS = 1 << 16


def _embedding_scale(family: Family, facts: _Facts, hidden: int) -> float:
    if family.embedding_root:
        return math.sqrt(hidden)
    return (facts.real("embedding_scale", 0.0) if family.scales else 0.0) or 1.0


def _rope_scaling(facts: _Facts, context: int) -> RopeScaling:
    """A file that names a factor and no kind means linear; one that names no factor scales nothing."""
    factor = facts.real("rope.scaling.factor", facts.real("rope.scale_linear", 0.0)) or 1.0
    return RopeScaling(
        kind=facts.text("rope.scaling.type", "linear"),
        factor=factor,
        attention_factor=facts.real("rope.scaling.attn_factor", 1.0),
        original_context=facts.whole("rope.scaling.original_context_length", context),
        fast=facts.real("rope.scaling.yarn_beta_fast", 32.0, above=0.0),
        slow=facts.real("rope.scaling.yarn_beta_slow", 1.0, above=0.0),
    )


def _check(shape: Dimensions) -> None:
    """ModelFileError for numbers that do not go together."""
    if shape.heads % shape.kv_heads:
        raise ModelFileError(f"the model file has {shape.heads} heads for {shape.kv_heads} heads of keys")
    for layer in shape.layers:
        read = shape.layers[layer.keys_of]
        if (layer.kv_heads, layer.head_size) != (read.kv_heads, read.head_size):
            raise ModelFileError("a layer of the model file reads keys of another shape than its own")
        rotary = shape.window_rotary if layer.window else shape.rotary
        if rotary % 2 or rotary > layer.head_size:
            raise ModelFileError(f"the model file rotates {rotary} elements of heads of {layer.head_size}")
    if shape.rope_scaling.factor < 0:
        raise ModelFileError(f"the model file squeezes positions by {shape.rope_scaling.factor}")
    if shape.used > shape.experts:
        raise ModelFileError(f"the model file takes {shape.used} of {shape.experts} experts")


class _Facts:
    """Typed look-ups of `<architecture>.<key>`; without a default the key must be there."""

    def __init__(self, header: Header) -> None:
        self._header = header

    def whole(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        full = f"{self._header.architecture}.{key}"
        value = self._header.metadata.get(full, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST:
            raise ModelFileError(f"the model file's {full} is {_words(value)}, not a usable number")
        return value

    def flags(self, key: str, count: int) -> tuple[bool, ...] | None:
        """One of true and false for each of `count` layers; None if there is a number, or nothing."""
        full = f"{self._header.architecture}.{key}"
        if isinstance(self._header.metadata.get(full, 0), int):
            return None
        found = self._header.flags(full)
        if found is None or len(found) != count:
            raise ModelFileError(f"the model file's {full} does not say it of each layer")
        return found

    def each(self, key: str, count: int) -> tuple[int, ...]:
        """One number for each of `count` layers, which may be 0; a number alone is that of all."""
        found = self._header.counts(f"{self._header.architecture}.{key}")
        if found is None:
            return (self.whole(key),) * count
        if len(found) != count or not all(0 <= number <= MOST for number in found):
            raise ModelFileError(f"the model file's {self._header.architecture}.{key} has no usable number a layer")
        return found

    def real(self, key: str, default: float | None = None, *, above: float | None = None) -> float:
        full = f"{self._header.architecture}.{key}"
        value = self._header.metadata.get(full, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelFileError(f"the model file's {full} is {_words(value)}, not a number")
        try:
            usable = math.isfinite(value) and (above is None or value > above)
        except OverflowError:
            usable = False
        if not usable:
            raise ModelFileError(f"the model file's {full} is {value}, not a usable number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        full = f"{self._header.architecture}.{key}"
        value = self._header.metadata.get(full, default)
        if not isinstance(value, bool):
            raise ModelFileError(f"the model file's {full} is {_words(value)}, not true or false")
        return value

    def text(self, key: str, default: str) -> str:
        full = f"{self._header.architecture}.{key}"
        value = self._header.metadata.get(full, default)
        if not isinstance(value, str):
            raise ModelFileError(f"the model file's {full} is {_words(value)}, not text")
        return value


def _words(value: object) -> str:
    if value is None:
        return "missing"
    return str(value) if isinstance(value, str | int | float) else "a list"
