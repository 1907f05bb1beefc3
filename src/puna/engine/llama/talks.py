"""Conversations on the slots of an engine: each goes on where it was, and what others had there is saved before."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from puna.engine.deposit import DepositError
from puna.engine.llama.book import LEAST, Book, Seat, agreeing
from puna.engine.llama.saved import SavedSlots
from puna.errors import PunaError, RunnerDied

Post = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


class Talks:
    """What `slots` slots hold, and what was `saved` of them, under `names`. `post` asks the engine; `working`: which
    slots it works on.

    Requests of other kinds, whose slot the engine chooses, are counted by `beside`.
    """

    def __init__(
        self,
        slots: int,
        saved: SavedSlots,
        names: Mapping[str, array[int]],
        post: Post,
        working: Callable[[], Awaitable[set[int]]],
    ) -> None:
        self._book = Book(slots, names)
        self._saved = saved
        self._post = post
        self._working = working
        self._free = asyncio.Semaphore(slots)
        self._busy: set[int] = set()
        self._others = 0
        self._keeping: dict[asyncio.Task[None], array[int]] = {}

    @asynccontextmanager
    async def placed(self, prompt: Sequence[int]) -> AsyncIterator[int | None]:
        """A slot for this prompt, for as long as it runs; None: the engine is to choose."""
        async with self._free:
            await self._kept(prompt)
            others = await self._working() if self._others else set()
            place = self._book.place(prompt, self._busy | others)
            if place is None:
                yield None
                return
            self._busy.add(place.slot)
            try:
                await self._prepare(place)
                self._book.holds(place.slot, prompt)
                yield place.slot
            finally:
                self._busy.discard(place.slot)

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """A request whose slot the engine chooses."""
        self._others += 1
        try:
            yield
        finally:
            self._others -= 1

    def hold(self, slot: int, tokens: Sequence[int]) -> None:
        """An answer is over: what its slot holds now. No tokens: nobody can tell."""
        self._book.holds(slot, tokens, saved=not tokens)

    async def settle(self) -> None:
        """Save all that would be lost, and return when it is. May be cancelled."""
        for slot in self._book.unsaved(self._busy):
            await self._save(slot)
        await asyncio.gather(*self._keeping)

    async def _kept(self, prompt: Sequence[int]) -> None:
        """What is just being saved may be what this prompt goes on with."""
        wanted = array("i", prompt)
        near = [task for task, tokens in self._keeping.items() if agreeing(tokens, wanted) > LEAST]
        if near:
            await asyncio.wait(near)

    async def _prepare(self, place: Seat) -> None:
        if place.save:
            await self._save(place.slot)
        if place.restore is not None:
            await self._restore(place.slot, place.restore)

    async def _save(self, slot: int) -> None:
        """Have the engine write what the slot holds; the rest is done beside what comes next."""
        try:
            part = self._saved.part()
            told = await self._post(f"/slots/{slot}?action=save", {"filename": part.name})
        except (PunaError, DepositError):
            return
        self._book.trim(slot, told["n_saved"])
        tokens = self._book.tokens(slot)[:]
        task = asyncio.create_task(self._keep(part, tokens))
        self._keeping[task] = tokens
        task.add_done_callback(self._keeping.__delitem__)

    async def _keep(self, part: Path, tokens: array[int]) -> None:
        name = await asyncio.to_thread(self._saved.keep, part, tokens)
        if name is not None:
            await asyncio.to_thread(self._saved.forget, self._book.save(name, tokens))

    async def _restore(self, slot: int, name: str) -> None:
        """What cannot be restored is computed."""
        path = await asyncio.to_thread(self._saved.file, name)
        if path is None:
            self._book.lost(name)
            return
        try:
            await self._post(f"/slots/{slot}?action=restore", {"filename": path.name})
        except PunaError as error:
            self._book.lost(name)
            await asyncio.to_thread(self._saved.forget, [name])
            if isinstance(error, RunnerDied):
                raise
