"""Waiting for a state. No other test waits with `sleep` (tests/unit/test_house.py sees to it)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

_LOOK_AGAIN = 0.01


def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Look until it holds; fail when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what}")
        time.sleep(_LOOK_AGAIN)


async def turns_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """The same between turns of the event loop, where what is waited for runs in it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what}")
        await turn()


async def looks_until(condition: Callable[[], Awaitable[object]], seconds: float, what: str) -> None:
    """The same where looking takes a while itself."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what}")
        await asyncio.sleep(_LOOK_AGAIN)


async def turn() -> None:
    """Let others run once."""
    await asyncio.sleep(0)


async def idle_within(busy: Callable[[], Awaitable[object]], seconds: float) -> bool:
    """Whether nothing is `busy` any more before the time is over."""
    deadline = time.monotonic() + seconds
    while await busy():
        if time.monotonic() > deadline:
            return False
    return True
