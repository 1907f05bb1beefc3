"""Progress of long jobs on stderr: bars on a terminal, plain lines elsewhere, so that logs and pipes stay readable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

from puna.human import human_bytes
from puna.types import Progress


def error_console() -> Console:
    """Where progress goes. Highlighting off: statuses are text, not data."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


class Bars:
    """On a terminal: one bar for each thing that moves bytes, a line for every other step."""

    def __init__(self, console: Console) -> None:
        self._tasks: dict[str, TaskID] = {}
        self._last = ""
        self._rich = RichProgress(
            TextColumn("{task.description}", markup=False),
            TaskProgressColumn(),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
        )

    def __enter__(self) -> Bars:
        self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rich.stop()

    def show(self, step: Progress) -> None:
        if step.total is None:
            if step.status != self._last:
                self._rich.console.print(step.status, markup=False)
            self._last = step.status
            return
        key = step.digest or step.status
        if key not in self._tasks:
            self._tasks[key] = self._rich.add_task(step.status, total=step.total)
        self._rich.update(self._tasks[key], description=step.status, total=step.total, completed=step.completed or 0)


class Lines:
    """Elsewhere: a line when something begins, and one when all its bytes are there."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""
        self._begun: set[str] = set()
        self._ended: set[str] = set()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, step: Progress) -> None:
        if step.total is None:
            if step.status != self._last:
                self._print(step.status)
            self._last = step.status
            return
        key = step.digest or step.status
        if key not in self._begun:
            self._begun.add(key)
            self._print(f"{step.status}: {human_bytes(step.total)}")
        if step.completed is not None and step.completed >= step.total and key not in self._ended:
            self._ended.add(key)
            self._print(f"{step.status}: done")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)


def reporter(console: Console) -> Bars | Lines:
    """To be used in `with`."""
    return Bars(console) if console.is_terminal else Lines(console)


async def follow(steps: AsyncIterator[Progress], console: Console) -> None:
    """Show a job's steps until it ends."""
    with reporter(console) as shown:
        async for step in steps:
            shown.show(step)


@contextmanager
def stopping(told: str, console: Console) -> Iterator[None]:
    """Inside, Ctrl-C says what became of the work before it ends the command."""
    try:
        yield
    except (asyncio.CancelledError, KeyboardInterrupt):
        console.print(told, markup=False)
        raise


@contextmanager
def waiting(text: str, console: Console) -> Iterator[None]:
    """A spinner while something takes its time; on a terminal only."""
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


@contextmanager
def counting(console: Console, what: str, total: int, done: int) -> Iterator[Callable[[], None]]:
    """Gives what is to be called for each of `total` that is done. A bar on a terminal; elsewhere a line each tenth."""
    if not console.is_terminal:
        tenths = done * 10 // total

        def tell() -> None:
            nonlocal done, tenths
            done += 1
            if done * 10 // total > tenths:
                tenths = done * 10 // total
                console.print(f"{what}: {done} of {total}", markup=False)

        yield tell
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        MofNCompleteColumn(),
        BarColumn(bar_width=None),
        TimeRemainingColumn(compact=True),
    )
    with RichProgress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda: bar.advance(task)
