"""One response under way: the answer's events told, and what has to be remembered kept before its end is told."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

import structlog

from puna.errors import PunaError, StateError
from puna.server.contract.report import Report
from puna.server.responses.holds import Hold
from puna.server.responses.ids import ResponseIds
from puna.server.responses.objects import PREFIXES
from puna.server.responses.past import expect_conversation
from puna.server.responses.telling import ResponseEvent, Telling
from puna.state.records import Change, Put, Record
from puna.state.state import State
from puna.types import Answer, Done, JsonObject, JsonValue, Started

UNKEPT = "a response is not stored"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Memory:
    """What is kept of a response, and where.

    `response`: whether the response is; `hold`: of the conversation where its items are added. `input` as it is listed.
    `asked`: the request says so, or needs it; otherwise an answer that cannot be kept is given all the same.
    """

    state: State
    owner: str
    created: float
    input: list[JsonObject]
    previous: str = ""
    response: bool = True
    hold: Hold | None = None
    asked: bool = True

    def record(self, response: JsonObject, report: dict[str, str]) -> Record:
        body: JsonObject = {
            "response": response,
            "input": cast("list[JsonValue]", self.input),
            "report": cast("JsonObject", report),
        }
        return Record(
            kind="response",
            id=str(response["id"]),
            owner=self.owner,
            body=body,
            created=self.created,
            previous=self.previous,
        )

    def added(self, output: list[JsonObject], ids: ResponseIds) -> list[Put]:
        """What a conversation gains. Items that the client has from elsewhere are copies, with ids of their own."""
        if self.hold is None:
            return []
        conversation = self.hold.conversation
        own = [item if ids.stem in str(item["id"]) else _renamed(item, ids) for item in self.input]
        return [
            Put(
                Record(
                    kind="item",
                    id=str(item["id"]),
                    owner=self.owner,
                    body=item,
                    created=self.created,
                    parent=conversation,
                )
            )
            for item in (*own, *output)
        ]


def _renamed(item: JsonObject, ids: ResponseIds) -> JsonObject:
    return {**item, "id": ids.next(PREFIXES[str(item["type"])])}


@dataclass(slots=True)
class ResponseWork:
    """`seed`: what chance begins with, where a response in the background may have to be made anew."""

    telling: Telling
    ids: ResponseIds
    answer: Answer
    report: Report
    memory: Memory
    seed: int
    begun: bool = field(default=False, init=False)

    async def told(self, *, early: bool = False, raising: bool = False) -> AsyncGenerator[ResponseEvent | bytes, None]:
        """The events, and comments that are due between them.

        An error before the answer has begun is raised; a later one is told (`response.failed`). `early`: begin at once,
        and tell every error. `raising`: raise every error.
        """
        try:
            if early:
                for told in self._begin():
                    yield told
            async with self.report.reading(self.answer) as events:
                async for event in events:
                    if isinstance(event, Started):
                        comment = self.report.start(event)
                        for told in self._begin():
                            yield told
                        if comment:
                            yield comment
                    for told in self.telling.tell(event):
                        yield told
                    if isinstance(event, Done):
                        await self.keep()
                        yield self.telling.end()
        except PunaError as error:
            if raising or not self.begun:
                raise
            failed = self.telling.fail(error)
            with suppress(PunaError):
                await self.keep()
            for told in failed:
                yield told
        finally:
            if self.memory.hold is not None:
                await self.memory.hold.release()

    async def whole(self) -> JsonObject:
        """The object, when all of it is there. Raises what ends it."""
        async for _ in self.told(raising=True):
            pass
        return self.telling.response

    def _begin(self) -> list[ResponseEvent]:
        if self.begun:
            return []
        self.begun = True
        return self.telling.begin()

    async def keep(self) -> None:
        """Everything at once: a response that is there is whole, and so is its conversation."""
        response, hold = self.telling.response, self.memory.hold
        changes: list[Change] = []
        if self.memory.response:
            changes.append(Put(self.memory.record(response, self.report.told)))
        if response["status"] in {"completed", "incomplete"}:
            if hold is not None:
                await expect_conversation(self.memory.state, hold.conversation, self.memory.owner, "conversation")
            changes += self.memory.added(self.telling.output, self.ids)
        if hold is not None and not hold.over:
            changes.append(hold.freed)
        if changes:
            await self._apply(changes)
        if hold is not None:
            hold.over = True

    async def _apply(self, changes: list[Change]) -> None:
        try:
            await self.memory.state.apply(*changes)
        except StateError as error:
            if self.memory.asked:
                raise
            _log.warning(UNKEPT, reason=error.message)
            self.telling.response["store"] = False
