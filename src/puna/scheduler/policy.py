"""Who gets the memory, and who is next. Pure: sees a Snapshot; no clock, process, device or model.

One step at a time: the scheduler acts on it and asks again with a new Snapshot. Towards one Wish, in this order:

1. The model is loaded (or loading) as wished, or with a larger context: reuse it.
2. It is loaded otherwise: it has to leave first, once its requests are done.
3. Too many are loaded, or memory does not suffice: one leaves. Idle ones first, of them the one that expires first,
   then the one used longest ago; when all work, that same order among them, and it leaves when its requests are done.
   One that is pinned never leaves for another.
4. Nothing of ours can leave: fewer slots if those fit, else refuse. What would not fit even then is refused before
   anything leaves for it.

A model is loaded with the largest context that any wants who waits for it. One that works is told to leave only when
somebody has waited for COLLATE_SECONDS: until then its own requests are served together, instead of one between two
loads.

Who is next: whoever finds his model there. Then models take turns, by their longest wait: a model has had its turn when
it was loaded, so those of its requests that need it otherwise go behind the others' that came before. Who waits for
memory holds back those behind him that need some; who waits for nothing but his own model's runner does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import TypeAlias

from puna.engine.runner import LoadOptions

HEADROOM = 0.95
"""Share of the free memory that a load may take."""

COLLATE_SECONDS = 5.0
"""For which requests to a model that works go before one that needs its place."""

HEAD_START = 10.0
"""Seconds that a request counts as having waited already, for each step of its model's priority."""


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
    `sizes`: (slots, bytes), most slots first; only the first if the number of slots is fixed.

    `since`, `deadline`: when it came, and from when on it may not begin. `priority`: its model's.
    """

    key: Key
    load: LoadOptions
    said: frozenset[str] = frozenset()
    sizes: tuple[tuple[int, int], ...] = ((1, 0),)
    priority: int = 0
    since: float = -inf
    deadline: float = inf
    id: int = 0

    def suits(self, load: LoadOptions) -> bool:
        if load.num_ctx < self.load.num_ctx:
            return False
        return all(getattr(load, name) == getattr(self.load, name) for name in self.said - {"num_ctx"})


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
    pinned: bool = False
    expires: float = inf
    used: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a decision is made from, at `time`.

    `free`: tells the bytes that the system could give now; asked only where something is to be loaded, for asking
    takes longer than deciding. `limit`: bytes that ours may take together, 0: `free` decides. `most`: runners at once,
    0: as many as fit.

    `queue`: those that wait, by their ids, for each model in the order in which they came. `turns`: when a model of
    which some wait was loaded last.
    """

    held: tuple[Held, ...]
    free: Callable[[], int]
    limit: int = 0
    most: int = 0
    time: float = 0.0
    queue: Mapping[Key, Mapping[int, Wish]] = field(default_factory=dict)
    turns: Mapping[Key, float] = field(default_factory=dict)

    def patient(self, wish: Wish) -> bool:
        """It may still let those pass whose model is there."""
        return self.time - wish.since < COLLATE_SECONDS

    def of(self, key: Key) -> Held | None:
        return next((held for held in self.held if held.key == key), None)


@dataclass(frozen=True, slots=True)
class Reuse:
    id: int


@dataclass(frozen=True, slots=True)
class Start:
    slots: int
    num_ctx: int
    size: int


@dataclass(frozen=True, slots=True)
class Evict:
    """It takes no more requests, and goes when those it has are done."""

    id: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Until something changes."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """It needs `need` bytes and could get `free`, even alone but for what is pinned."""

    need: int
    free: int


@dataclass(frozen=True, slots=True)
class AllPinned:
    """As many models are pinned as may be loaded."""


Act: TypeAlias = Reuse | Start | Evict | TooLarge | AllPinned
Decision: TypeAlias = Act | Wait


@dataclass(frozen=True, slots=True)
class Move:
    """What is to be done next, for the Wish of this id."""

    wish: int
    act: Act


def next_move(now: Snapshot) -> Move | None:
    """The next step for those that wait; None: nothing can be done before something changes."""
    for held in now.held:
        if not held.leaving:
            for wish in _live(now.queue.get(held.key, {}), now):
                if wish.suits(held.load):
                    return Move(wish.id, Reuse(held.id))
    for wish in line(now):
        decision = decide(_widest(wish, now), now)
        if isinstance(decision, TooLarge):
            decision = decide(wish, now)
        if not isinstance(decision, Wait):
            return Move(wish.id, decision)
        if now.of(wish.key) is None:
            return None
    return None


def line(now: Snapshot) -> list[Wish]:
    """The first of each model that wait, in the order in which they may have something loaded."""
    heads = [head for wishes in now.queue.values() if (head := next(_live(wishes, now), None)) is not None]
    return sorted(heads, key=lambda wish: (turn(wish, now.turns), wish.id))


def _widest(wish: Wish, now: Snapshot) -> Wish:
    """With the largest context that any wants who waits for this model: so it is loaded once for all of them."""
    widest = max(_live(now.queue[wish.key], now), key=lambda one: one.load.num_ctx)
    if widest.load.num_ctx <= wish.load.num_ctx:
        return wish
    return replace(wish, load=replace(wish.load, num_ctx=widest.load.num_ctx), sizes=widest.sizes)


def turn(wish: Wish, turns: Mapping[Key, float]) -> float:
    """The less, the sooner."""
    return max(wish.since, turns.get(wish.key, -inf)) - wish.priority * HEAD_START


def _live(wishes: Mapping[int, Wish], now: Snapshot) -> Iterator[Wish]:
    """Those whose time is not over."""
    return (wish for wish in wishes.values() if now.time < wish.deadline)


def decide(wish: Wish, now: Snapshot) -> Decision:
    """The next step towards `wish`."""
    same = now.of(wish.key)
    if same is not None:
        return _same(same, wish, now)
    slots, size = wish.sizes[0]
    if (not now.most or len(now.held) < now.most) and _fits(size, now):
        return Start(slots, wish.load.num_ctx, size)
    movable = [held for held in now.held if not held.pinned]
    need, most = wish.sizes[-1][1], room(now) + sum(held.size for held in movable)
    if need > most:
        return TooLarge(need, max(most, 0))
    if any(held.leaving for held in now.held):
        return Wait()
    if movable:
        return _make_room(wish, movable, now)
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
        return Wait() if held.users and now.patient(wish) else Evict(held.id)
    return Reuse(held.id)


def _fits(size: int, now: Snapshot) -> bool:
    return size <= room(now)


def _make_room(wish: Wish, held: Iterable[Held], now: Snapshot) -> Decision:
    """Idle before working; then by expiry, then by last use. One that still loads is waited for."""
    loaded = [one for one in held if not one.loading]
    if not loaded:
        return Wait()
    first = min(loaded, key=lambda one: (one.users > 0, one.expires, one.used, one.id))
    return Wait() if first.users and now.patient(wish) else Evict(first.id)


def _alone(wish: Wish, now: Snapshot) -> Decision:
    if now.most and len(now.held) >= now.most:
        return AllPinned()
    for slots, size in wish.sizes:
        if _fits(size, now):
            return Start(slots, wish.load.num_ctx, size)
    return TooLarge(wish.sizes[-1][1], max(room(now), 0))
