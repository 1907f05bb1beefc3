"""Long work in Python beside an event loop: in few threads, so that the loop's own turn comes soon.

Only one thread of a process runs Python at a time. With many at work the loop waits for each of them, again and again:
eight large bodies at once kept small requests waiting for seconds.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 2
"""One that goes on when the other is at the work of a system call."""

TURN_SECONDS = 0.001
"""How long a thread may run before one that waits gets its turn."""

Result = TypeVar("Result")

_threads = ThreadPoolExecutor(THREADS, "beside")


async def in_lane(work: Callable[[], Result]) -> Result:
    """The result of `work`, done in a thread as soon as one is free."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_threads, lambda: context.run(work))


def take_short_turns() -> None:
    """For this process, from now on."""
    sys.setswitchinterval(TURN_SECONDS)
