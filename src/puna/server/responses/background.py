"""Responses that go on without whoever asked: followed, cancelled, and resumed where a follower left off.

Their events are kept as records while they come, a few at a time, and all of them before the end is told. What a kill
interrupted is found out when somebody asks for it: it is failed then, with the events that were kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, MutableMapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

import structlog

from puna.errors import Conflict, NotFound, PunaError, ServerStopping
from puna.server.callers import keeping_deadline
from puna.server.ending import Ending
from puna.server.errors import internal_error
from puna.server.responses.holds import ServerClaim
from puna.server.responses.objects import UNDER_WAY, error_json
from puna.server.responses.telling import ResponseEvent
from puna.server.responses.work import ResponseWork
from puna.state.records import Delete, Put, Query, Record
from puna.state.state import State
from puna.types import JsonObject, JsonValue

EVENTS_AT_ONCE = 50
"""Events that are kept as one record: written one by one, they would cost more than the tokens they tell."""

_WORKER = "worker"
"""In what is kept of a response under way: the claim of the server that works on it."""

INTERRUPTED = "The server ended before this response was complete."

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Running:
    """A response under way. `events`: all so far; `news`: set and made anew when there are more, or none will be.

    `answering`: the part of it that may be cancelled; `task`: all of it.
    """

    work: ResponseWork
    events: list[ResponseEvent] = field(default_factory=list)
    kept: int = 0
    over: bool = False
    cancelled: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
    answering: asyncio.Task[None] | None = None
    task: asyncio.Task[None] | None = None

    def tell(self, told: ResponseEvent) -> None:
        self.events.append(told)
        self.wake()

    def wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    async def follow(self, after: int) -> AsyncGenerator[ResponseEvent, None]:
        """Its events with numbers over `after`, as they come."""
        place = 0
        while True:
            news = self.news
            while place < len(self.events):
                told = self.events[place]
                place += 1
                if number_of(told) > after:
                    yield told
            if self.over:
                return
            await news.wait()


def number_of(told: ResponseEvent) -> int:
    return cast("int", told["sequence_number"])


class BackgroundResponses:
    """All responses that this process works on. One event loop only."""

    def __init__(self, state: State, ending: Ending, claim: ServerClaim) -> None:
        self._state = state
        self._ending = ending
        self._running: dict[str, Running] = {}
        self._claim = claim

    async def start(self, work: ResponseWork) -> Running:
        """Begin it: from here on it is stored. What it begins with has been told when this returns."""
        await self._claim.begin()
        record = self._record(work)
        await self._state.apply(Put(record, new=True))
        running = Running(work)
        self._running[record.id] = running
        state: dict[str, Any] = {}
        running.answering = asyncio.create_task(self._answer(record.id, running, state))
        running.task = asyncio.create_task(self._run(record.id, running, running.answering, state))
        return running

    def running(self, id: str, owner: str) -> Running | None:
        found = self._running.get(id)
        return found if found is not None and found.work.memory.owner == owner else None

    async def found(self, id: str, owner: str) -> Record | None:
        """What is kept of a response; of one under way, also while it had to make room for others."""
        running = self.running(id, owner)
        return await self._state.get("response", id, owner) if running is None else self._record(running.work)

    async def _run(
        self, id: str, running: Running, answering: asyncio.Task[None], state: MutableMapping[str, Any]
    ) -> None:
        """From its beginning to the end of what is kept of it. Only the answering is ever cancelled: nothing interrupts
        what has to follow.
        """
        try:
            self._ending.enter(state, answering)
        except ServerStopping:
            answering.cancel()
        try:
            await asyncio.wait({answering})
            if answering.cancelled():
                await self._end(running, None if running.cancelled else state.get("interrupted") or ServerStopping())
            elif isinstance(error := answering.exception(), PunaError):
                await self._end(running, error)
            elif error is not None:
                _log.error("response in the background failed", id=id, exc_info=error)
                await self._end(running, internal_error(id))
            with suppress(PunaError):
                await self._keep_events(id, running)
        finally:
            running.over = True
            running.wake()
            del self._running[id]
            self._ending.leave(answering)

    async def _answer(self, id: str, running: Running, state: MutableMapping[str, Any]) -> None:
        with keeping_deadline(state):
            async with aclosing(running.work.told(early=True)) as events:
                async for told in events:
                    if not isinstance(told, bytes):
                        running.tell(told)
                        if len(running.events) - running.kept >= EVENTS_AT_ONCE:
                            await self._keep_events(id, running)

    async def _end(self, running: Running, error: PunaError | None) -> None:
        """It is over before its end: cancelled (None), or by a fault."""
        telling = running.work.telling
        told = telling.cancel() if error is None else telling.fail(error)
        with suppress(PunaError):
            await running.work.keep()
        for one in told:
            running.tell(one)

    async def _keep_events(self, id: str, running: Running) -> None:
        new = running.events[running.kept :]
        if not new:
            return
        owner, events = running.work.memory.owner, [*running.events]
        try:
            await self._state.apply(Put(_events_record(id, owner, running.kept, new)))
        except NotFound:
            # It went to make room for others, as the oldest that it was. What is under way is not lost by that.
            await self._state.apply(Put(self._record(running.work)), Put(_events_record(id, owner, 0, events)))
        running.kept = len(events)

    def _record(self, work: ResponseWork) -> Record:
        """As it is kept while it is under way."""
        record = work.memory.record(work.telling.response, work.report.told)
        if cast("JsonObject", record.body["response"])["status"] not in UNDER_WAY:
            return record
        return replace(record, body={**record.body, _WORKER: self._claim.name})

    async def cancel(self, running: Running) -> None:
        """Returns when it has ended, in whatever way."""
        if not running.cancelled and running.answering is not None:
            running.cancelled = True
            running.answering.cancel()
        if running.task is not None:
            await asyncio.wait({running.task})

    # ---------------------------------------------------------------------------------------------------- afterwards

    async def settled(self, record: Record) -> Record:
        """The record as it is; one that is under way nowhere any more becomes failed. NotFound when it is gone."""
        response = cast("JsonObject", record.body["response"])
        if response["status"] not in UNDER_WAY or self.running(record.id, record.owner) is not None:
            return record
        elsewhere = await self._claim.lives(str(record.body.get(_WORKER, "")))
        now = await self._state.get("response", record.id, record.owner)
        if now is None:
            raise NotFound(f"Response with id '{record.id}' not found.")
        if elsewhere or cast("JsonObject", now.body["response"])["status"] not in UNDER_WAY:
            return now
        events = await self.events(record)
        failed: JsonObject = {**response, "status": "failed", "error": error_json(PunaError(INTERRUPTED))}
        number = number_of(events[-1]) + 1 if events else 0
        last: ResponseEvent = {"type": "response.failed", "sequence_number": number, "response": failed}
        ended = Record(
            kind="response",
            id=record.id,
            owner=record.owner,
            body={**record.body, "response": failed},
            created=record.created,
            previous=record.previous,
            expires=record.expires,
        )
        try:
            await self._state.apply(
                Put(ended, over=now), Put(_events_record(record.id, record.owner, len(events), [last]))
            )
        except Conflict:
            return await self.settled(now)  # somebody else saw it first
        return ended

    async def own(self, record: Record) -> Record:
        """As `settled`. Conflict where another server that shares the state works on it."""
        settled = await self.settled(record)
        response = cast("JsonObject", settled.body["response"])
        if response["status"] in UNDER_WAY and self.running(record.id, record.owner) is None:
            raise Conflict(
                f"The response '{record.id}' is under way on another server that shares this one's state: ask that one."
            )
        return settled

    async def events(self, record: Record) -> list[ResponseEvent]:
        """What was kept of them; none of a response that was not in the background."""
        query = Query(parent=record.id, limit=None, newest_first=False)
        pages = (await self._state.page("event", record.owner, query)).records
        return [told for page in pages for told in cast("list[ResponseEvent]", page.body["events"])]

    async def forget(self, record: Record) -> None:
        """It, and its events."""
        running = self.running(record.id, record.owner)
        if running is not None:
            await self.cancel(running)
        else:
            await self.own(record)
        await self._state.apply(Delete("response", record.id, record.owner))


def _events_record(id: str, owner: str, first: int, events: list[ResponseEvent]) -> Record:
    return Record(
        kind="event",
        id=f"evt_{id.removeprefix('resp_')}_{first}",
        owner=owner,
        body={"events": cast("list[JsonValue]", list(events))},
        created=time.time(),
        parent=id,
    )
