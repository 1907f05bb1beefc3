"""The events of an answer as the frames of a stream, whatever its chunks look like."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from puna.server.contract.report import Report
from puna.server.streaming import sse_data
from puna.types import Answer, Event, Started

DONE = sse_data("[DONE]")


class Chunks(Protocol):
    """Makes the chunks of one answer."""

    def frame(self, event: Event) -> bytes:
        """The bytes for one event, perhaps none."""
        ...


async def frames(answer: Answer, begin: Callable[[Started], Chunks], report: Report) -> AsyncGenerator[bytes, None]:
    """Server-sent events. `begin`: makes the chunks of an answer that has started."""
    chunks: Chunks | None = None
    async with report.reading(answer) as events:
        async for event in events:
            if chunks is not None:
                frame = chunks.frame(event)
                if frame:
                    yield frame
            elif isinstance(event, Started):
                chunks = begin(event)
                comment = report.start(event)
                if comment:
                    yield comment
    yield DONE
