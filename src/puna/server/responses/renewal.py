"""What it takes to make a response anew that a server left unfinished: the same request, and all that chance decided.

The same ids, the same seed: where an engine repeats an answer of one seed, its events come again as they were, and who
follows them misses nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from math import inf
from typing import cast

from starlette.requests import Request

from puna.inference.caller import current_caller
from puna.server.contract.reading import BACKGROUND, DEADLINE, STRICT
from puna.server.responses.bodies import ResponseBody
from puna.server.responses.telling import ENDS, ResponseEvent
from puna.state.records import Record
from puna.types import JsonObject

TRIES = 10
"""How often a response is begun whose server is killed over it each time."""

_CHANCE = frozenset({"obfuscation"})
"""Fields of events that are other ones each time, and mean nothing."""


@dataclass(frozen=True, slots=True)
class ResponseRenewal:
    """`request`: as it was sent. `until`: when its time is over, in seconds since 1970. `tries`: how often it began."""

    request: JsonObject
    headers: dict[str, str]
    seed: int
    until: float | None = None
    tries: int = 1

    @classmethod
    def of(cls, request: Request, sent: JsonObject, seed: int) -> ResponseRenewal:
        """Of a request that is about to be answered by the current task."""
        deadline = current_caller().deadline
        return cls(
            request=sent,
            headers={name: request.headers[name] for name in (BACKGROUND, STRICT) if name in request.headers},
            seed=seed,
            until=None if deadline == inf else time.time() + deadline - asyncio.get_running_loop().time(),
        )

    @classmethod
    def read(cls, kept: JsonObject) -> ResponseRenewal:
        return cls(**kept)  # type: ignore[arg-type]

    def json(self) -> JsonObject:
        return {
            "request": self.request,
            "headers": cast("JsonObject", self.headers),
            "seed": self.seed,
            "until": self.until,
            "tries": self.tries,
        }

    @property
    def over(self) -> bool:
        """Whether its time is."""
        return self.until is not None and self.until <= time.time()

    def sent_headers(self) -> dict[str, str]:
        """Those of the request that asks for it again."""
        left = {} if self.until is None else {DEADLINE: f"{max(self.until - time.time(), 0.001):.3f}"}
        return {**self.headers, **left}


def as_sent(body: ResponseBody) -> JsonObject:
    """A body as it came."""
    # It would warn of unions that a function tells apart, and writes them all the same.
    return cast("JsonObject", body.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings="none"))


@dataclass(frozen=True, slots=True)
class Left:
    """A response that is to be made anew: as it is kept, with the events that were told of it."""

    record: Record
    renewal: ResponseRenewal
    events: list[ResponseEvent]


def same_event(told: ResponseEvent, before: ResponseEvent) -> bool:
    """Whether an event is the one that was told before in its place."""
    if told["type"] in ENDS:
        return told["type"] == before["type"]
    names = (told.keys() | before.keys()) - _CHANCE
    return all(told.get(name) == before.get(name) for name in names)
