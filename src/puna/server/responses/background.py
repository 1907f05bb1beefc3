"""Responses that go on without whoever asked: followed, cancelled, and resumed where a follower left off.

Their events are kept as records while they come, a few at a time, and all of them before the end is told. What a server
left unfinished, however it ended, is made anew: at the next start, or as soon as somebody asks another server for it.
Where the new answer is not the one that was told before, it fails, with the events that were kept.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import FIRST_COMPLETED as FIRST
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

import structlog

from puna.errors import Conflict, DeadlineExceeded, NotFound, PunaError, ServerStopping
from puna.server.body import dump_text, parse_json
from puna.server.callers import keeping_deadline
from puna.server.ending import Ending, interrupt
from puna.server.errors import internal_error
from puna.server.inside import InsideAnswer
from puna.server.responses.holds import ServerClaim
from puna.server.responses.objects import UNDER_WAY, error_json
from puna.server.responses.renewal import TRIES, Left, ResponseRenewal, same_event
from puna.server.responses.telling import ENDS, ResponseEvent
from puna.server.responses.work import ResponseWork
from puna.state.records import Delete, Put, Query, Record
from puna.state.state import State
from puna.types import JsonObject, JsonValue

EVENTS_AT_ONCE = 50
"""Events that are kept as one record: written one by one, they would cost more than the tokens they tell."""

_SERVER, _RENEWAL = "server", "renewal"
"""In what is kept of a response under way: the claim of the server that works on it; how it is made anew."""

_WORK = {"work": "left"}
"""What is kept of each that is under way, and by which they are found."""

AT_ONCE = 4
"""Responses that are made anew after a start; the others wait for these."""

INTERRUPTED = "The server ended before this response was complete, and it could not be made anew"

AskAgain: TypeAlias = Callable[[bytes, str, Mapping[str, str], Left], Awaitable[InsideAnswer]]
"""POST a body to /v1/responses, in the name of an owner, with headers, for what was left."""


class AnotherAnswerError(Exception):
    """A response that is made anew is not what was told before."""


_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Running:
    """A response under way. `events`: all so far; `news`: set and made anew when there are more, or none will be.

    `before`: those that an earlier server told. `state`: why it was interrupted. `left`: it ends here unfinished, for
    another server to make anew.
    `answering`: the part of it that may be cancelled; `task`: all of it.
    """

    work: ResponseWork
    renewal: ResponseRenewal
    before: list[ResponseEvent] = field(default_factory=list)
    events: list[ResponseEvent] = field(default_factory=list)
    kept: int = 0
    over: bool = False
    cancelled: bool = False
    left: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
    state: dict[str, Any] = field(default_factory=dict)
    answering: asyncio.Task[None] | None = None
    task: asyncio.Task[None] | None = None

    def tell(self, told: ResponseEvent) -> None:
        place = len(self.events)
        if place < len(self.before) and not same_event(told, self.before[place]):
            raise AnotherAnswerError
        self.events.append(told)
        self.wake()

    def wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    async def follow(self, after: int) -> AsyncGenerator[ResponseEvent, None]:
        """Its events with numbers over `after`, as they come. ServerStopping where it is left."""
        place = 0
        while True:
            news = self.news
            while place < len(self.events):
                told = self.events[place]
                place += 1
                if number_of(told) > after:
                    yield told
            if self.left:
                raise ServerStopping
            if self.over:
                return
            await news.wait()


def number_of(told: ResponseEvent) -> int:
    return cast("int", told["sequence_number"])


class BackgroundResponses:
    """All responses that this process works on. One event loop only."""

    def __init__(self, state: State, ending: Ending, claim: ServerClaim, ask_again: AskAgain) -> None:
        self._state = state
        self._ending = ending
        self._running: dict[str, Running] = {}
        self._claim = claim
        self._ask_again = ask_again
        self._renewing: asyncio.Task[None] | None = None
        self._renewals: dict[str, asyncio.Task[None]] = {}

    def begin(self) -> None:
        """From now on it is made anew what other servers left."""
        self._renewing = asyncio.create_task(self._renew_all())

    async def stop(self) -> None:
        """No other is begun, and those under way are left: the next server makes them anew."""
        beginning = {task for task in (self._renewing, *self._renewals.values()) if task is not None}
        for task in beginning:
            task.cancel()
        if beginning:
            await asyncio.wait(beginning)
        tasks = {running.task for running in self._running.values() if running.task is not None}
        for running in self._running.values():
            if running.answering is not None:
                interrupt(running.state, running.answering, ServerStopping())
        if tasks:
            await asyncio.wait(tasks)

    async def start(self, work: ResponseWork, renewal: ResponseRenewal, left: Left | None = None) -> Running:
        """Begin it: from here on it is stored. What it begins with has been told when this returns.

        `left`: what was left of it. Conflict where that is another by now, or gone.
        """
        await self._claim.begin()
        before = [] if left is None else left.events
        running = Running(work, renewal, before, kept=len(before))
        record = self._record(running)
        await self._state.apply(Put(record, new=True) if left is None else Put(record, over=left.record))
        self._running[record.id] = running
        running.answering = asyncio.create_task(self._answer(record.id, running))
        running.task = asyncio.create_task(self._run(record.id, running, running.answering))
        return running

    def running(self, id: str, owner: str) -> Running | None:
        found = self._running.get(id)
        return found if found is not None and found.work.memory.owner == owner else None

    async def found(self, id: str, owner: str) -> Record | None:
        """What is kept of a response; of one under way, also while it had to make room for others."""
        running = self.running(id, owner)
        return await self._state.get("response", id, owner) if running is None else self._record(running)

    async def _run(self, id: str, running: Running, answering: asyncio.Task[None]) -> None:
        """From its beginning to the end of what is kept of it. Only the answering is ever cancelled: nothing interrupts
        what has to follow.
        """
        try:
            self._ending.enter(running.state, answering)
        except ServerStopping:
            answering.cancel()
        try:
            await asyncio.wait({answering})
            if answering.cancelled():
                interrupted = running.state.get("interrupted") or ServerStopping()
                if running.cancelled or not isinstance(interrupted, ServerStopping):
                    await self._end(running, None if running.cancelled else interrupted)
                else:
                    await self._leave(running)
            elif isinstance(error := answering.exception(), PunaError):
                await self._end(running, error)
            elif isinstance(error, AnotherAnswerError):
                await self._end(running, PunaError(f"{INTERRUPTED}: the same seed gave another answer."))
            elif error is not None:
                _log.error("response in the background failed", id=id, exc_info=error)
                await self._end(running, internal_error(id, error))
            with suppress(PunaError):
                await self._keep_events(id, running)
        finally:
            running.over = True
            running.wake()
            del self._running[id]
            self._ending.leave(answering)

    async def _answer(self, id: str, running: Running) -> None:
        with keeping_deadline(running.state):
            async with aclosing(running.work.told(early=True)) as events:
                async for told in events:
                    if not isinstance(told, bytes):
                        running.tell(told)
                        if len(running.events) - running.kept >= EVENTS_AT_ONCE:
                            await self._keep_events(id, running)

    async def _end(self, running: Running, error: PunaError | None) -> None:
        """It is over before its end: cancelled (None), or by a fault. What an earlier server told of it stands."""
        telling = running.work.telling
        told = telling.cancel() if error is None else telling.fail(error)
        if len(running.events) < len(running.before):
            running.events = list(running.before)
            telling.response = {**telling.response, "output": []}
            told = [_after(running.before, str(told[-1]["type"]), telling.response)]
        with suppress(PunaError):
            await running.work.keep()
        for one in told:
            running.tell(one)

    async def _leave(self, running: Running) -> None:
        """The server ends before it does: the next one makes it anew. One that is whole already is ended."""
        work = running.work
        if work.telling.response["status"] in UNDER_WAY:
            running.left = True
            running.renewal = replace(running.renewal, tries=0)
            with suppress(PunaError):
                await self._state.apply(Put(self._record(running)))
        elif running.events[-1]["type"] not in ENDS:
            with suppress(PunaError):
                await work.keep()
            running.tell(work.telling.end())

    async def _keep_events(self, id: str, running: Running) -> None:
        new = running.events[running.kept :]
        if not new:
            return
        owner, events = running.work.memory.owner, [*running.events]
        try:
            await self._state.apply(Put(_events_record(id, owner, running.kept, new)))
        except NotFound:
            # It went to make room for others, as the oldest that it was. What is under way is not lost by that.
            await self._state.apply(Put(self._record(running)), Put(_events_record(id, owner, 0, events)))
        running.kept = len(events)

    def _record(self, running: Running) -> Record:
        """As it is kept while it is under way."""
        work = running.work
        record = work.memory.record(work.telling.response, work.report.told)
        if cast("JsonObject", record.body["response"])["status"] not in UNDER_WAY:
            return record
        under_way: JsonObject = {_SERVER: self._claim.name, _RENEWAL: running.renewal.json(), **_WORK}
        return replace(record, body={**record.body, **under_way})

    async def cancel(self, running: Running) -> None:
        """Returns when it has ended, in whatever way."""
        if not running.cancelled and running.answering is not None:
            running.cancelled = True
            running.answering.cancel()
        if running.task is not None:
            await asyncio.wait({running.task})

    # ---------------------------------------------------------------------------------------------------- afterwards

    async def settled(self, record: Record) -> Record:
        """The record as it is; one that is under way nowhere any more is made anew, or failed. NotFound when gone."""
        response = cast("JsonObject", record.body["response"])
        if response["status"] not in UNDER_WAY or self.running(record.id, record.owner) is not None:
            return record
        if (renewal := self._renewals.get(record.id)) is not None:
            await asyncio.wait({renewal})
        elsewhere = await self._claim.lives(str(record.body.get(_SERVER, "")))
        now = await self.found(record.id, record.owner)
        if now is None:
            raise NotFound(f"Response with id '{record.id}' not found.")
        if elsewhere or cast("JsonObject", now.body["response"])["status"] not in UNDER_WAY:
            return now
        if self.running(record.id, record.owner) is None:
            await self._renew_once(now)
        return await self.found(record.id, record.owner) or await self.settled(now)

    async def _renew_all(self) -> None:
        """The oldest first, a few at a time. What goes wrong with one is its own."""
        try:
            for record in await self._state.everyones("response", _WORK):
                try:
                    await self.settled(record)
                except PunaError as error:
                    _log.warning("a response in the background waits", id=record.id, reason=str(error))
                while len(self._running) >= AT_ONCE:
                    await asyncio.wait({one.task for one in self._running.values() if one.task}, return_when=FIRST)
        except PunaError as error:
            _log.warning("responses in the background wait", reason=str(error))

    async def _renew_once(self, kept: Record) -> None:
        """For all who ask at once. Nothing is raised where another server saw it first."""
        if kept.id not in self._renewals:
            task = self._renewals[kept.id] = asyncio.create_task(self._renew(kept))
            task.add_done_callback(lambda _: self._renewals.pop(kept.id))
        with suppress(Conflict):
            await asyncio.shield(self._renewals[kept.id])

    async def _renew(self, kept: Record) -> None:
        """Make it anew that its server left, or fail it. Conflict when somebody else does."""
        await self._claim.begin()
        if _RENEWAL not in kept.body:  # of a version that could not
            await self._fail(kept, PunaError(f"{INTERRUPTED}."))
            return
        renewal = ResponseRenewal.read(cast("JsonObject", kept.body[_RENEWAL]))
        again = replace(renewal, tries=renewal.tries + 1)
        taken = replace(kept, body={**kept.body, _SERVER: self._claim.name, _RENEWAL: again.json()})
        await self._state.apply(Put(taken, over=kept))
        if renewal.over:
            await self._fail(taken, DeadlineExceeded())
        elif again.tries > TRIES:
            await self._fail(taken, PunaError(f"{INTERRUPTED}: {TRIES} servers in turn were ended over it."))
        else:
            left = Left(taken, again, await self.events(taken))
            asked = dump_text(again.request).encode("utf-8", "replace")
            answer = await self._ask_again(asked, taken.owner, again.sent_headers(), left)
            if answer.status not in {200, 0, ServerStopping.status, Conflict.status}:
                error = cast("JsonObject", cast("JsonObject", parse_json(answer.body))["error"])
                await self._fail(taken, PunaError(f"{INTERRUPTED}: {error['message']}"))

    async def _fail(self, kept: Record, error: PunaError) -> None:
        """It was under way, and is no more. Conflict when it is another by now."""
        response = cast("JsonObject", kept.body["response"])
        events = await self.events(kept)
        failed: JsonObject = {**response, "status": "failed", "error": error_json(error)}
        body = {**kept.body, "response": failed}
        for name in (_SERVER, _RENEWAL, *_WORK):
            body.pop(name, None)
        last = _events_record(kept.id, kept.owner, len(events), [_after(events, "response.failed", failed)])
        await self._state.apply(Put(replace(kept, body=body), over=kept), Put(last))

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
        if self.running(record.id, record.owner) is None:
            await self.own(record)
        running = self.running(record.id, record.owner)
        if running is not None:
            await self.cancel(running)
        await self._state.apply(Delete("response", record.id, record.owner))


def _after(events: list[ResponseEvent], type_: str, response: JsonObject) -> ResponseEvent:
    """The last event, behind these."""
    number = number_of(events[-1]) + 1 if events else 0
    return {"type": type_, "sequence_number": number, "response": response}


def _events_record(id: str, owner: str, first: int, events: list[ResponseEvent]) -> Record:
    return Record(
        kind="event",
        id=f"evt_{id.removeprefix('resp_')}_{first}",
        owner=owner,
        body={"events": cast("list[JsonValue]", list(events))},
        created=time.time(),
        parent=id,
    )
