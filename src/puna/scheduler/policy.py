"""Who gets the memory. Pure: sees a Snapshot and a Wish; no clock, process, device or model.

One decision at a time: the scheduler acts on it and asks again with a new Snapshot. In this order:

1. The model is loaded (or loading) as wished, or with a larger context: reuse it.
2. It is loaded otherwise: it has to leave first, once its requests are done.
3. Too many are loaded, or memory does not suffice: one leaves. Idle ones first, of them the one that expires first,
   then the one used longest ago; when all work, that same order among them, and it leaves when its requests are done.
4. Nothing of ours can leave: fewer slots if those fit, else refuse.

One that works is told to leave only when somebody has waited for COLLATE_SECONDS: until then its own requests are
served together, instead of one between two loads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from puna.engine.runner import LoadOptions

HEADROOM = 0.95
"""Share of the free memory that a load may take."""


COLLATE_SECONDS = 5.0
"""For which requests to a model that works go before one that needs its place."""


@dataclass(frozen=True, slots=True)
class Key:
    """Which model, whatever its load options: digest of the weights, and paths of what is laid over them.

    A model that embeds and one that generates are loaded apart.
    """

    weights: str
    adapters: tuple[str, ...] = ()
    projectors: tuple[str, ...] = ()
    embedding: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What one request needs.

    `said`: names of the load options that it fixes; others suit as they are. `num_ctx` suits if it is not smaller.
    `sizes`: (slots, bytes), most slots first; only the first if the number of slots is fixed. `waited`: seconds.
    """

    key: Key
    load: LoadOptions
    said: frozenset[str] = frozenset()
    sizes: tuple[tuple[int, int], ...] = ((1, 0),)
    waited: float = inf

    def suits(self, load: LoadOptions) -> bool:
        if load.num_ctx < self.load.num_ctx:
            return False
        return all(getattr(load, name) == getattr(self.load, name) for name in self.said - {"num_ctx"})

    @property
    def patient(self) -> bool:
        """It may still let those pass whose model is there."""
        return self.waited < COLLATE_SECONDS


@dataclass(frozen=True, slots=True)
class Held:
    """A runner that exists. `expires` and `used` are times of one clock; `expires` inf: never."""

    id: int
    key: Key
    load: LoadOptions
    size: int
    users: int = 0
    loading: bool = False
    leaving: bool = False
    expires: float = inf
    used: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a decision about memory is made from.

    `free`: tells the bytes that the system could give now; asked only where something is to be loaded, for asking
    takes longer than deciding. `limit`: bytes that ours may take together, 0: `free` decides.

    `most`: runners at once, 0: as many as fit. `queue`: requests that may wait for one runner's slots.
    """

    held: tuple[Held, ...]
    free: Callable[[], int]
    limit: int = 0
    most: int = 0
    queue: int = 512


@dataclass(frozen=True, slots=True)
class Reuse:
    id: int


@dataclass(frozen=True, slots=True)
class Start:
    slots: int
    size: int


@dataclass(frozen=True, slots=True)
class Evict:
    """It takes no more requests, and goes when those it has are done."""

    id: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Until something changes."""


@dataclass(frozen=True, slots=True)
class Full:
    """Too many wait for this model already."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """It needs `need` bytes and could get `free`, even alone."""

    need: int
    free: int


Decision: TypeAlias = Reuse | Start | Evict | Wait | Full | TooLarge


def decide(wish: Wish, now: Snapshot) -> Decision:
    """The next step towards `wish`."""
    same = next((held for held in now.held if held.key == wish.key), None)
    if same is not None:
        return _same(same, wish, now)
    slots, size = wish.sizes[0]
    if (not now.most or len(now.held) < now.most) and _fits(size, now):
        return Start(slots, size)
    if any(held.leaving for held in now.held):
        return Wait()
    if now.held:
        return _make_room(wish, now.held)
    return _alone(wish, now)


def room(now: Snapshot) -> int:
    """Bytes that one more runner may take."""
    if now.limit:
        return now.limit - sum(held.size for held in now.held)
    return int(now.free() * HEADROOM) - sum(held.size for held in now.held if held.loading)


def _same(held: Held, wish: Wish, now: Snapshot) -> Decision:
    if held.leaving:
        return Wait()
    if not wish.suits(held.load):
        return Wait() if held.users and wish.patient else Evict(held.id)
    if held.users >= held.load.slots + now.queue:
        return Full()
    return Reuse(held.id)


def _fits(size: int, now: Snapshot) -> bool:
    return size <= room(now)


def _make_room(wish: Wish, held: Iterable[Held]) -> Decision:
    """Idle before working; then by expiry, then by last use. One that still loads is waited for."""
    loaded = [one for one in held if not one.loading]
    if not loaded:
        return Wait()
    first = min(loaded, key=lambda one: (one.users > 0, one.expires, one.used, one.id))
    return Wait() if first.users and wish.patient else Evict(first.id)


def _alone(wish: Wish, now: Snapshot) -> Decision:
    for slots, size in wish.sizes:
        if _fits(size, now):
            return Start(slots, size)
    return TooLarge(wish.sizes[-1][1], max(room(now), 0))
