"""Conversations on the slots of an engine: each goes on where it was, and what others had there is saved before.

What would be lost with the process is saved, too, as soon as a SaveBudget lets it: see `puna.engine.llama.budget`.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from puna.engine.deposit import DepositError
from puna.engine.llama.book import LEAST, Book, Seat, agreeing
from puna.engine.llama.budget import SaveBudget
from puna.engine.llama.saved import SavedSlots
from puna.errors import PunaError, RunnerDied

Post = Callable[[str, Mapping[str, Any]], Awaitable[Any]]

SAVING = 30.0
"""Seconds after which nobody waits for a save any more."""

LOOK_AGAIN = 0.01
"""Seconds between two looks at whether a slot still works."""

Saving: TypeAlias = "asyncio.Task[asyncio.Task[bool] | None]"
"""The engine writes a slot. What comes of it is the task that does the rest, if it could be written (see `_save`)."""


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
        self._keeping: dict[asyncio.Task[bool], array[int]] = {}
        self._budget = SaveBudget()
        self._worked = 0.0
        self._saving: dict[int, Saving] = {}
        self._ahead: asyncio.Task[None] | None = None
        self._stopped = False

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
                self._over()

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """A request whose slot the engine chooses."""
        self._others += 1
        try:
            yield
        finally:
            self._others -= 1
            self._over()

    def hold(self, slot: int, tokens: Sequence[int]) -> None:
        """An answer is over: what its slot holds now. No tokens: nobody can tell."""
        self._book.holds(slot, tokens, saved=not tokens)

    async def settle(self) -> None:
        """Save all that would be lost, and return when it is. May be cancelled. Nothing is saved ahead any more."""
        self.stop()
        await asyncio.gather(*self._saving.values())
        await asyncio.gather(*self._keeping)
        for slot in self._book.unsaved(self._busy):
            await self._save(slot)
        await asyncio.gather(*self._keeping)

    def stop(self) -> None:
        """Save nothing ahead any more."""
        self._stopped = True
        if self._ahead is not None:
            self._ahead.cancel()

    def _over(self) -> None:
        """A request is: what it has left may be lost with the process."""
        self._worked = time.monotonic()
        if not self._stopped and (self._ahead is None or self._ahead.done()):
            self._ahead = asyncio.create_task(self._save_ahead(self._begin()))

    async def _save_ahead(self, begun: Saving | float | None) -> None:
        """Save what would be lost with the process, the newest first, and no faster than is allowed."""
        while begun is not None:
            if isinstance(begun, float):
                await asyncio.sleep(begun)
            else:
                keeping = await asyncio.shield(begun)
                if keeping is None or not await asyncio.shield(keeping):
                    return
            begun = self._begin()

    def _begin(self) -> Saving | float | None:
        """Begin to save the slot used last of those that nobody uses: who comes to it meanwhile waits. Or seconds until
        that is allowed; None: nothing would be lost.
        """
        under_way = [*self._keeping.values(), *map(self._book.tokens, self._saving)]
        slots = [slot for slot in self._book.unsaved(self._busy) if self._book.tokens(slot) not in under_way]
        if not slots:
            return None
        now = time.monotonic()
        wait = self._budget.wait(now, now if self._busy or self._others else self._worked)
        if wait:
            return wait
        return self._start(slots[0])

    def _start(self, slot: int) -> Saving:
        """Save the slot, whoever goes away meanwhile: who comes to it waits."""
        saving = self._saving[slot] = asyncio.create_task(self._save(slot))
        saving.add_done_callback(lambda _: self._saving.pop(slot))
        return saving

    async def _kept(self, prompt: Sequence[int]) -> None:
        """What is just being saved, and in no slot any more, may be what this prompt goes on with."""
        wanted = array("i", prompt)
        gone = [(task, tokens) for task, tokens in self._keeping.items() if not self._book.has(tokens)]
        near = [task for task, tokens in gone if agreeing(tokens, wanted) > LEAST]
        if near:
            await asyncio.wait(near)

    async def _prepare(self, place: Seat) -> None:
        saving = self._saving.get(place.slot)
        if saving is None and place.save:
            saving = self._start(place.slot)
        if saving is not None:
            await asyncio.shield(saving)
        if place.restore is not None:
            await self._restore(place.slot, place.restore)

    async def _save(self, slot: int) -> asyncio.Task[bool] | None:
        """Have the engine write what the slot holds. The rest is done beside what comes next, by the task that is
        returned, which tells whether it could be. None: it cannot be written.
        """
        held = self._book.tokens(slot)
        try:
            part = self._saved.part()
        except DepositError:
            return None
        written = None
        try:
            written = await asyncio.wait_for(self._written(slot, part), SAVING)
        except (asyncio.TimeoutError, PunaError):
            return None
        finally:
            if written is None:
                self._saved.discard(part)
        if written is None:
            await asyncio.to_thread(self._saved.make_room)
            return None
        if self._book.tokens(slot) is held:
            self._book.trim(slot, written)
        tokens = held[:written]
        task = asyncio.create_task(self._keep(part, tokens))
        self._keeping[task] = tokens
        task.add_done_callback(self._keeping.__delitem__)
        return task

    async def _written(self, slot: int, part: Path) -> int | None:
        """Have the engine write a slot that nobody else is given: how many tokens it held. None: they are not all
        there.
        """
        await self._rest(slot)
        try:
            told = await self._post(f"/slots/{slot}?action=save", {"filename": part.name})
        except RunnerDied:
            raise
        except PunaError:
            return None
        self._budget.spend(time.monotonic(), told["n_written"], told["timings"]["save_ms"] / 1000)
        # What a full disk did not take of its last bytes the engine does not notice.
        whole = self._saved.size(part) == told["n_written"]
        return int(told["n_saved"]) if whole else None

    async def _keep(self, part: Path, tokens: array[int]) -> bool:
        name = await asyncio.to_thread(self._saved.keep, part, tokens)
        if name is not None:
            await asyncio.to_thread(self._saved.forget, self._book.save(name, tokens))
        return name is not None

    async def _rest(self, slot: int) -> None:
        """Return when the engine has left off working on the slot, as it does a moment after a client has gone.

        What is asked of a slot at work the engine puts off, and takes up one such thing each time a slot has worked:
        a save that was put off could wait for ever, or let another wait.
        """
        while True:
            if slot not in await self._working():
                return
            await asyncio.sleep(LOOK_AGAIN)

    async def _restore(self, slot: int, name: str) -> None:
        """What cannot be restored is computed."""
        path = await asyncio.to_thread(self._saved.file, name)
        if path is None:
            self._book.lost(name)
            return
        await self._rest(slot)
        try:
            await self._post(f"/slots/{slot}?action=restore", {"filename": path.name})
        except PunaError as error:
            self._book.lost(name)
            await asyncio.to_thread(self._saved.forget, [name])
            if isinstance(error, RunnerDied):
                raise
