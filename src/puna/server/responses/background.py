"""Responses that go on without whoever asked: followed, cancelled, and resumed where a follower left off.

Their events are kept as records while they come, a few at a time, and all of them before the end is told. What a kill
interrupted is found out when somebody asks for it: it is failed then, with the events that were kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import structlog

from puna.errors import PunaError, ServerStopping
from puna.server.callers import keeping_deadline
from puna.server.ending import Ending
from puna.server.errors import internal_error
from puna.server.responses.objects import UNDER_WAY, error_json
from puna.server.responses.telling import ResponseEvent
from puna.server.responses.work import ResponseWork
from puna.state.records import Delete, Put, Query, Record
from puna.state.state import State
from puna.types import JsonObject, JsonValue

EVENTS_AT_ONCE = 50
"""Events that are kept as one record: written one by one, they would cost more than the tokens they tell."""

INTERRUPTED = "The server ended before this response was complete."

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Running:
    """A response under way. `events`: all so far; `news`: set and made anew when there are more, or none will be."""

    work: ResponseWork
    events: list[ResponseEvent] = field(default_factory=list)
    kept: int = 0
    over: bool = False
    cancelled: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
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

    def __init__(self, state: State, ending: Ending) -> None:
        self._state = state
        self._ending = ending
        self._running: dict[str, Running] = {}

    async def start(self, work: ResponseWork) -> Running:
        """Begin it: from here on it is stored. What it begins with has been told when this returns."""
        await self._state.apply(Put(work.memory.record(work.telling.response, work.report.told), new=True))
        running = Running(work)
        id_ = str(work.telling.response["id"])
        self._running[id_] = running
        running.task = asyncio.create_task(self._run(id_, running))
        return running

    def running(self, id: str, owner: str) -> Running | None:
        found = self._running.get(id)
        return found if found is not None and found.work.memory.owner == owner else None

    async def _run(self, id: str, running: Running) -> None:
        work = running.work
        entered, state = False, cast("dict[str, Any]", {})
        try:
            self._ending.enter(state)
            entered = True
            with keeping_deadline(state):
                async for told in work.told(early=True):
                    if not isinstance(told, bytes):
                        running.tell(told)
                        if len(running.events) - running.kept >= EVENTS_AT_ONCE:
                            await self._keep_events(id, running)
        except asyncio.CancelledError:
            # Whoever cancels waits: nothing interrupts what follows.
            await self._end(running, None if running.cancelled else state.get("interrupted") or ServerStopping())
        except PunaError as error:
            await self._end(running, error)
        except Exception:  # noqa: BLE001 - nobody else would see it
            _log.exception("response in the background failed", id=id)
            await self._end(running, internal_error(id))
        finally:
            with suppress(PunaError):
                await self._keep_events(id, running)
            running.over = True
            running.wake()
            del self._running[id]
            if entered:
                self._ending.leave()

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
        memory = running.work.memory
        await self._state.apply(Put(_events_record(id, memory.owner, running.kept, new)))
        running.kept = len(running.events)

    async def cancel(self, running: Running) -> None:
        """Returns when it has ended, in whatever way."""
        running.cancelled = True
        if running.task is not None:
            running.task.cancel()
            await asyncio.wait({running.task})

    # ---------------------------------------------------------------------------------------------------- afterwards

    async def settled(self, record: Record) -> Record:
        """The record as it is; one that is under way nowhere any more becomes a failed one."""
        response = cast("JsonObject", record.body["response"])
        if response["status"] not in UNDER_WAY or self.running(record.id, record.owner) is not None:
            return record
        now = await self._state.get("response", record.id, record.owner)
        if now is None or cast("JsonObject", now.body["response"])["status"] not in UNDER_WAY:
            return now or record
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
        await self._state.apply(Put(ended, over=now), Put(_events_record(record.id, record.owner, len(events), [last])))
        return ended

    async def events(self, record: Record) -> list[ResponseEvent]:
        """What was kept of them; none of a response that was not in the background."""
        query = Query(parent=record.id, limit=None, newest_first=False)
        pages = (await self._state.page("event", record.owner, query)).records
        return [told for page in pages for told in cast("list[ResponseEvent]", page.body["events"])]

    async def forget(self, id: str, owner: str) -> None:
        """It, and its events."""
        running = self.running(id, owner)
        if running is not None:
            await self.cancel(running)
        await self._state.apply(Delete("response", id, owner))


def _events_record(id: str, owner: str, first: int, events: list[ResponseEvent]) -> Record:
    return Record(
        kind="event",
        id=f"evt_{id.removeprefix('resp_')}_{first}",
        owner=owner,
        body={"events": cast("list[JsonValue]", list(events))},
        created=time.time(),
        parent=id,
    )
