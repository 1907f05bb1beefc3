"""How much memory a loaded model takes. Pure arithmetic on what its header says; opens no file, asks no machine.

An estimate, meant to be a little high: weights as the engine keeps them, a key and a value for each layer and place of
the context, and the engine's own buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from puna.engine.runner import LoadOptions
from puna.model.gguf import Header

BYTES_PER_VALUE = {None: 2.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}


WINDOW_STEP = 256
"""Places: what a layer with a window keeps is a multiple of it."""

STEP = 256
"""Tokens: contexts are looked for in multiples of it."""

ROWS = 16_384
"""Rows of a table that is only looked up that count: a system maps a file in pages of several rows, for each that is
read, and seldom all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What an engine takes for its work, as it was measured.

    `base`: bytes of a runner's process without a model. `weights`: bytes it holds for each of the file's. `token`:
    bytes for each token of the vocabulary. `batch`: tokens computed at once, when nothing else is said; `most`: at
    most. `value`: bytes of a number in the cache; None: as is asked for. `keyless`: bytes of each channel of a token
    that a layer without keys keeps. `windows`: of layers that look back over a window it keeps no more than that.
    `apart`: the head is kept apart from the table of embeddings that it is made of.
    """

    base: int
    weights: float
    token: int
    batch: int
    value: float | None
    keyless: float = 0.0
    most: int = 0
    windows: bool = False
    apart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLayout:
    """The numbers of a header that decide. `numbers`: of keys and values a place, in all layers; `keyless`: layers that
    have none. `channels`: numbers that a layer without keys may keep of each token; `state`: that it has of each
    sequence, in 32 bits. `windowed`: of `numbers`, those of layers that look back over `window` places.
    `media`: bytes that an image or a sound takes while it is encoded (see `encoding`). `looked_up`: of `weights`, the
    bytes of tables that have a row for each token and are nothing else; `tied`: of the one that is the head too.
    """

    weights: int
    vocabulary: int
    embedding: int
    numbers: int
    keyless: int
    channels: int
    state: int
    windowed: int = 0
    window: int = 0
    media: int = 0
    looked_up: int = 0
    tied: int = 0


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
    near: Sequence[bool] = (),
    near_length: int | None = None,
    shared: int = 0,
    window: int | None = None,
    period: int | None = None,
    media: int = 0,
    looked_up: int = 0,
    tied: int = 0,
) -> ModelLayout:
    """With what a header may leave unsaid put at llama.cpp's defaults. `weights` counts projectors too.

    `kv_heads`: of all layers, or of each, 0: it has no keys. `key`, `value`: lengths of one head's. `interval`: only
    each so manieth layer has keys; None: all for which `kv_heads` says so. `near`: which layers have heads of
    `near_length` in place of both, and look back over a `window`; where they are not named, all but each so manieth
    (`period`) do. `shared`: so many of the last layers read the keys of others.
    """
    each = (
        (kv_heads or heads,) * blocks
        if kv_heads is None or isinstance(kv_heads, int)
        else tuple(max(count, 0) for count in kv_heads)
    )
    if interval:
        each = tuple(0 if number % interval else count for number, count in enumerate(each, 1))
    each = each or (1,) * blocks
    head = embedding // heads if heads else embedding
    length = (key or head) + (value or head)
    lengths = [2 * near_length if near_length and is_near else length for is_near in near]
    lengths += [length] * (len(each) - len(lengths))
    own = max(len(each) - shared, 0)
    held = [count * numbers for count, numbers in zip(each[:own], lengths, strict=False)]
    short = near or [bool(period) and number % (period or 1) != 0 for number in range(1, len(each) + 1)]
    return ModelLayout(
        weights=weights,
        vocabulary=vocabulary,
        embedding=embedding,
        numbers=sum(held),
        keyless=each.count(0),
        channels=embedding if channels is None else channels,
        state=state,
        windowed=sum(numbers for numbers, is_short in zip(held, short, strict=False) if is_short) if window else 0,
        window=window or 0,
        media=media,
        looked_up=looked_up,
        tied=tied,
    )


def projector_kinds(header: Header) -> frozenset[str]:
    """What a projector's header says it is, for images and for sounds."""
    found = (header.text(f"clip.{part}projector_type") for part in ("", "vision.", "audio."))
    return frozenset(kind for kind in found if kind)


def encoding(places: int, width: int, between: int) -> int:
    """Bytes that a projector takes for what it sees or hears at once: `places`, each of `width` numbers in 32 bits, and
    of `between` in the middle of a block. As measured: three of these, and two of those.
    """
    return places * (3 * width + 2 * between) * 4


@lru_cache(maxsize=256)
def estimate(shape: ModelLayout, load: LoadOptions, costs: Costs, most: int = 0) -> Estimate:
    """What a runner so loaded takes. `most`: bytes that its cache may take, but for one context; 0: all it can fill."""
    batch = min(load.num_batch or costs.batch, costs.most or costs.batch)
    each = BYTES_PER_VALUE[load.cache_type] if costs.value is None else costs.value
    short = min(load.num_ctx, -(-(shape.window + batch) // WINDOW_STEP) * WINDOW_STEP)
    places = (shape.numbers - shape.windowed) * load.num_ctx
    places += shape.windowed * (short if costs.windows else load.num_ctx)
    keyless = shape.channels * load.num_ctx * costs.keyless + shape.state * 4
    one = places * each + shape.keyless * keyless
    cache = one * load.slots if not most else max(min(one * load.slots, most), one)
    tables = shape.looked_up + (shape.tied if costs.apart else 0)
    rows = tables * min(ROWS / max(shape.vocabulary, 1), 1.0)
    weights = (shape.weights - shape.looked_up) * costs.weights + rows
    compute = costs.token * shape.vocabulary + batch * 12 * shape.embedding * 4 + shape.media
    return Estimate(int(weights), int(cache), costs.base + compute)


def largest_context(need: Callable[[int], int], available: int, most: int) -> int | None:
    """The largest multiple of STEP (or `most` itself) of which `need`, which grows with it, is at most `available`."""
    if need(most) <= available:
        return most
    low, high = 0, -(-most // STEP)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if need(middle * STEP) <= available else (low, middle)
    return low * STEP or None


def over(reckon: Callable[[LoadOptions], Estimate], load: LoadOptions, most: int) -> str | None:
    """Why a context may not be so long as `load` has it, in words. `most`: bytes that the cache may take, 0: all it
    wants; one context has to fit.
    """

    def cache(num_ctx: int) -> int:
        return reckon(replace(load, num_ctx=num_ctx, slots=1)).cache

    if not most or cache(load.num_ctx) <= most:
        return None
    largest = largest_context(cache, most, load.num_ctx)
    instead = f"num_ctx {largest}" if largest else f"not even {STEP} tokens"
    return (
        f"a context of {load.num_ctx} tokens needs {cache(load.num_ctx) / 2**20:.1f} MiB of cache, and "
        f"PUNA_CACHE_MEMORY lets it take {most / 2**20:.1f}; {instead} would fit"
    )
