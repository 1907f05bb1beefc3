"""Deep: native code that calls itself for what lies in each other, in a thread whose stack has room for all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

_STACK = 8 * 1024 * 1024
"""Bytes for all that does not depend on what is given. What is not touched takes no memory."""

_setting = threading.Lock()


def deep(levels: int, level: int, work: Callable[[], Result]) -> Result:
    """What `work` gives, in a thread of its own with `level` bytes of stack for each of `levels`. Waits for it.

    MemoryError when the system has no room for such a thread.
    """
    with ThreadPoolExecutor(1, "deep") as thread:
        # The size is the process's, for whichever thread begins next: another with more than it needs is not harmed.
        with _setting:
            before = threading.stack_size(_STACK + levels * level)
            try:
                done = thread.submit(work)
            except RuntimeError as error:
                raise MemoryError(f"no thread with a stack for {levels} levels") from error
            finally:
                threading.stack_size(before)
        return done.result()
