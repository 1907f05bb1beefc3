"""Dimensions: the numbers of a model's header that its graph is built from. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from puna.errors import ModelFileError
from puna.model.gguf import Header


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How positions beyond the trained context are squeezed. `kind`: none, linear, yarn or longrope."""

    kind: str
    factor: float
    attention_factor: float
    original_context: int
    fast: float
    slow: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """Counts and sizes in elements. `rotary`: how many elements of a head are rotated. `window` 0: none; else one layer
    in `window_period` sees all.

    `attention_scale` None: the root of the head's size. `feed_forward`: the width between gate and down.
    """

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    rotary: int
    feed_forward: int
    context: int
    epsilon: float
    rope_base: float
    rope_base_window: float
    rope_scaling: RopeScaling
    window: int
    window_period: int
    attention_scale: float | None


def read_shape(header: Header) -> Dimensions:
    """ModelFileError when the header does not say enough, or what cannot be."""
    facts = _Facts(header)
    hidden, heads = facts.whole("embedding_length"), facts.whole("attention.head_count")
    head_size = facts.whole("attention.key_length", hidden // heads)
    context = facts.whole("context_length")
    base = facts.real("rope.freq_base", 10000.0)
    return Dimensions(
        architecture=header.architecture,
        layers=facts.whole("block_count"),
        hidden=hidden,
        heads=heads,
        kv_heads=facts.whole("attention.head_count_kv", heads),
        head_size=head_size,
        rotary=facts.whole("rope.dimension_count", head_size),
        feed_forward=facts.whole("feed_forward_length"),
        context=context,
        epsilon=facts.real("attention.layer_norm_rms_epsilon"),
        rope_base=base,
        rope_base_window=facts.real("rope.freq_base_swa", 10000.0),
        rope_scaling=_rope_scaling(facts, context),
        window=facts.whole("attention.sliding_window", 0),
        window_period=facts.whole("attention.sliding_window_pattern", 6),
        attention_scale=facts.real("attention.scale", 0.0) or None,
    )


def _rope_scaling(facts: _Facts, context: int) -> RopeScaling:
    """A file that names a factor and no kind means linear; one that names no factor scales nothing."""
    factor = facts.real("rope.scaling.factor", facts.real("rope.scale_linear", 0.0)) or 1.0
    return RopeScaling(
        kind=facts.text("rope.scaling.type", "linear"),
        factor=factor,
        attention_factor=facts.real("rope.scaling.attn_factor", 1.0),
        original_context=facts.whole("rope.scaling.original_context_length", context),
        fast=facts.real("rope.scaling.yarn_beta_fast", 32.0),
        slow=facts.real("rope.scaling.yarn_beta_slow", 1.0),
    )


class _Facts:
    """Typed look-ups of `<architecture>.<key>`; without a default the key must be there."""

    def __init__(self, header: Header) -> None:
        self._header = header

    def whole(self, key: str, default: int | None = None) -> int:
        full = f"{self._header.architecture}.{key}"
        value = self._header.metadata.get(full, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0 or (value == 0 and default != 0):
            raise ModelFileError(f"the model file's {full} is {_words(value)}, not a usable number")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        full = f"{self._header.architecture}.{key}"
        value = self._header.metadata.get(full, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelFileError(f"the model file's {full} is {_words(value)}, not a number")
        return float(value)

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
