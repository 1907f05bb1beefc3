"""How much memory a loaded model takes. Pure arithmetic on what its header says; opens no file, asks no machine.

An estimate, meant to be a little high: weights as the engine keeps them, a key and a value for each layer and place of
the context, and the engine's own buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from puna.engine.runner import LoadOptions

BYTES_PER_VALUE = {None: 2.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What an engine takes for its work, as it was measured.

    `base`: bytes of a runner's process without a model. `weights`: bytes it holds for each of the file's. `batch`:
    tokens computed at once, when nothing else is said. `value`: bytes of a number in the cache; None: as is asked for.
    `keyless`: bytes of each channel of a token that a layer without keys keeps.
    """

    base: int
    weights: float
    batch: int
    value: float | None
    keyless: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLayout:
    """The numbers of a header that decide. `kv_heads`: one number a layer, 0: it has no keys. `key`, `value`: lengths
    of one head's. `channels`: numbers that a layer without keys may keep of each token; `state`: that it has of each
    sequence, in 32 bits.
    """

    weights: int
    vocabulary: int
    embedding: int
    kv_heads: tuple[int, ...]
    key: int
    value: int
    channels: int
    state: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes."""

    weights: int
    cache: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.compute


def shape(
    *,
    weights: int,
    vocabulary: int,
    embedding: int,
    blocks: int,
    heads: int,
    kv_heads: int | Sequence[int] | None,
    key: int | None = None,
    value: int | None = None,
    interval: int | None = None,
    channels: int | None = None,
    state: int = 0,
) -> ModelLayout:
    """With what a header may leave unsaid put at llama.cpp's defaults. `weights` counts projectors too.

    `interval`: only each so manieth layer has keys; None: all for which `kv_heads` says so.
    """
    each = (
        (kv_heads or heads,) * blocks
        if kv_heads is None or isinstance(kv_heads, int)
        else tuple(max(count, 0) for count in kv_heads)
    )
    if interval:
        each = tuple(0 if number % interval else count for number, count in enumerate(each, 1))
    head = embedding // heads if heads else embedding
    return ModelLayout(
        weights=weights,
        vocabulary=vocabulary,
        embedding=embedding,
        kv_heads=each or (1,) * blocks,
        key=key or head,
        value=value or head,
        channels=embedding if channels is None else channels,
        state=state,
    )


@lru_cache(maxsize=256)
def estimate(shape: ModelLayout, load: LoadOptions, costs: Costs) -> Estimate:
    """What a runner so loaded takes."""
    places = load.num_ctx * load.slots
    values = sum(shape.kv_heads) * (shape.key + shape.value) * places
    each = BYTES_PER_VALUE[load.cache_type] if costs.value is None else costs.value
    keyless = shape.channels * places * costs.keyless + shape.state * load.slots * 4
    cache = values * each + shape.kv_heads.count(0) * keyless
    batch = min(load.num_batch or costs.batch, costs.batch)
    compute = batch * (shape.vocabulary + 12 * shape.embedding) * 4
    return Estimate(int(shape.weights * costs.weights), int(cache), costs.base + compute)
