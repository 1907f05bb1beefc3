"""Who may change what a store lists: one thread of one process at a time."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from puna.errors import Conflict
from puna.store.files import write_errors

LOCK_NAME = ".lock"
"""In the models directory. It stays there: removing it would let two processes hold it."""

PATIENCE = 20.0
"""Seconds that one waits for another. Changes are short: blobs are written outside."""


class Changing:
    """Held with `with`, again by the same thread if need be. Conflict when others do not let go of it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._here = threading.RLock()
        self._everywhere = FileLock(root / LOCK_NAME, timeout=PATIENCE, mode=0o666)
        self._depth = 0

    def __enter__(self) -> None:
        self._here.acquire()
        try:
            if self._depth == 0:
                self._lock()
            self._depth += 1
        except BaseException:
            self._here.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        try:
            if self._depth == 0:
                self._everywhere.release()
        finally:
            self._here.release()

    def _lock(self) -> None:
        with write_errors("changing the store"):
            self._root.mkdir(parents=True, exist_ok=True)
            try:
                self._everywhere.acquire()
            except Timeout as error:
                raise Conflict(f"another process is changing the store {self._root}: try again") from error
