"""Family: what sets one architecture's layers apart from Llama's. A table of facts; pure.

What every family has in common is not said here: a norm, attention, a sum; a norm, a gated feed-forward, a sum; biases
where the file has them; queries, keys and values in one tensor or three; gate and up in one tensor or two; and a head
of its own or the embedding once more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Pairs(Enum):
    """How a file keeps the two halves of a rotary pair: next to each other, or half the rotated part apart."""

    NEIGHBOURS = "neighbours"
    HALVES = "halves"


class Activation(Enum):
    """What gates the feed-forward. `value` is the native library's number."""

    SILU = 0
    GELU = 1
    CLAMPED_SWIGLU = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Norms:
    """Tensors of a layer's norms, and of the last one. Those after a part are left out where the name is None."""

    attention: str = "attn_norm"
    after_attention: str | None = None
    feed: str = "ffn_norm"
    after_feed: str | None = None
    output: str = "output_norm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Layers that see the last positions only: all but each `period`-th.

    `size`: how many positions where the file does not say; None: it must. `base`: of the rope of such layers where the
    file does not say, which is then not squeezed either; None: they turn as the others do.
    """

    period: int
    size: int | None = None
    base: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """Bounds of attention's scores and of the logits where the file does not say; 0: none."""

    attention: float
    logits: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture in place of each feed-forward: a row takes the outcome of the likeliest experts, each by its share.

    `renormalise`: shares are the probabilities among the chosen ones, else among all. `beside`: models may have none;
    in those that have, they stand beside the plain feed-forward, with norms of their own.
    """

    renormalise: bool
    beside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Linear attention by a gated delta rule in all layers but each `period`-th, where the file names no other."""

    period: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One architecture, by the name that files give it.

    `rope_scaling`: the kinds that its files may name. `unturned`: each so manieth layer is not told positions, 0: none.
    `head_norms`: queries and keys of each head are normed before they are turned. `sinks`: each head has a score that
    takes weight and has no value. `convolutions`: a layer for which the file names no heads of keys convolves the last
    few tokens in place of attending. `gated`: behind each head's queries come as many numbers, the sigmoid of which
    multiplies what it saw. `embedding_root`: embeddings are multiplied by the root of their width. `scales`:
    the file may name factors of embeddings, of what is added to the residual, and a divisor of logits. `wide`: models
    of so many layers scale attention by the width of the embedding over the heads, in place of a head's size; 0: none.
    `value_norms`: values are normed too, without weights. `own_shapes`: layers with a window may have other heads than
    those without, layers other widths, the last ones may read the keys of earlier ones, and each may add something of
    its own and scale what leaves it. `unscaled`: scores of attention are as they are.
    """

    architecture: str
    pairs: Pairs
    rope_scaling: frozenset[str] = frozenset({"none", "linear", "yarn"})
    unturned: int = 0
    norms: Norms = field(default_factory=Norms)
    head_norms: bool = False
    value_norms: bool = False
    own_shapes: bool = False
    sinks: bool = False
    convolutions: bool = False
    linear: Linear | None = None
    gated: bool = False
    windows: Windows | None = None
    caps: Caps | None = None
    activation: Activation = Activation.SILU
    experts: Experts | None = None
    embedding_root: bool = False
    scales: bool = False
    wide: int = 0
    unscaled: bool = False
