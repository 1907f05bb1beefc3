"""An event loop whose clock goes on only when nothing is left to do: hours in a second, and always the same."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

Result = TypeVar("Result")


class StuckError(RuntimeError):
    """Nothing is left that could ever happen."""


class _Selector(selectors.BaseSelector):
    """Where a real one would wait, time passes. What comes from outside is seen, and never waited for."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StuckError("everybody waits, and nothing will happen")
        if timeout > 0:
            self.now += timeout
        return self._real.select(0)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """No threads: what they do takes none of its time, so it would not wait for them."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


async def pass_time(seconds: float) -> None:
    """Let so much time pass in the running loop. Of a virtual one: no test waits by a real clock like this."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    over = loop.create_future()
    timer = loop.call_later(seconds, lambda: over.done() or over.set_result(None))
    try:
        await over
    finally:
        timer.cancel()


def run_virtual(main: Coroutine[Any, Any, Result]) -> Result:
    """Like `asyncio.run`. StuckError where everybody waits for ever."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
