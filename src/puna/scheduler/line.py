"""Requests that wait for a place: a line for each model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from puna.scheduler.needs import Need
from puna.scheduler.place import Place, Use
from puna.scheduler.policy import Key, Wish, turn


@dataclass(eq=False, slots=True)
class Ticket:
    """A request in line: its need, with a wish of its own, and the place that it will have."""

    need: Need
    use: Use
    place: asyncio.Future[Place]

    @property
    def wish(self) -> Wish:
        return self.need.wish


class Line:
    """Who waits, in the order of coming. `queue`, `turns`: as a Snapshot has them."""

    def __init__(self) -> None:
        self._tickets: dict[int, Ticket] = {}
        self._queue: dict[Key, dict[int, Wish]] = {}
        self._turns: dict[Key, float] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(list(self._tickets.values()))

    def __getitem__(self, wish: int) -> Ticket:
        return self._tickets[wish]

    @property
    def queue(self) -> Mapping[Key, Mapping[int, Wish]]:
        return self._queue

    @property
    def turns(self) -> Mapping[Key, float]:
        return self._turns

    def count(self, key: Key) -> int:
        """How many wait for one model."""
        return len(self._queue.get(key, ()))

    def add(self, ticket: Ticket) -> None:
        wish = ticket.wish
        self._tickets[wish.id] = ticket
        self._queue.setdefault(wish.key, {})[wish.id] = wish

    def remove(self, ticket: Ticket) -> None:
        """It may have gone before."""
        wish = ticket.wish
        if self._tickets.pop(wish.id, None) is None:
            return
        waiting = self._queue[wish.key]
        del waiting[wish.id]
        if not waiting:
            del self._queue[wish.key]
            self._turns.pop(wish.key, None)

    def had_turn(self, key: Key, now: float) -> None:
        """The model is being loaded."""
        if key in self._queue:
            self._turns[key] = now

    def in_order(self) -> list[Ticket]:
        """As they stand now: the next one first."""
        return sorted(self._tickets.values(), key=lambda ticket: (turn(ticket.wish, self._turns), ticket.wish.id))
