"""A look now and then at a runner: whether it gets on with what it has to do, and with nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from puna.engine.runner import Runner
from puna.errors import EngineError

LOOK_SECONDS = 5.0
"""Between two looks, at most."""


async def watch(runner: Runner, limit: float, wanted: Callable[[], bool], used: Callable[[], float]) -> str | None:
    """Why the runner has to be ended; None once it has ended by itself.

    `limit`: seconds that it may have work and give no sign of life, or go on with work that nobody waits for, others'
    requests beside it or not. `wanted`: whether somebody waits for it. `used`: when somebody last went; who came and
    went between two looks may have left it work that it hangs over.
    """
    pause, busy, before = min(limit / 4, LOOK_SECONDS), 0, used()
    strays: dict[Hashable, float] = {}
    while not runner.died.done():
        await asyncio.sleep(pause)
        now = used()
        if not wanted() and not busy and now == before:
            continue
        before = now
        try:
            busy = await asyncio.wait_for(runner.busy(), limit)
            found = await asyncio.wait_for(runner.strays(), limit) if busy else frozenset[Hashable]()
        except asyncio.TimeoutError:
            return f"it had work and gave no sign of life for {limit:g} s"
        except (EngineError, OSError):
            continue  # it has ended, or is about to; or this process may not open what it is asked through
        strays = {stray: strays.get(stray, 0.0) + pause for stray in found}
        if any(seconds >= limit for seconds in strays.values()):
            return f"it went on for {limit:g} s with work that was cancelled"
    return None
