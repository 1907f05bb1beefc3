"""The conversation on a terminal: reads messages, shows answers, until `/bye` or Ctrl-D."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from puna import places
from puna.cli.answer import Transcript, printer, show, stats_text, tell_notices
from puna.cli.keyboard import Cleared, Keyboard, unheard
from puna.cli.media import attach
from puna.cli.progress import waiting
from puna.cli.session import Session, command, open_model
from puna.errors import PunaError


async def converse(session: Session, console: Console) -> None:
    """Returns when the user has had enough."""
    keyboard = Keyboard(history_path())
    with unheard():
        with waiting(f"loading {session.model}", console):
            await open_model(session)
        while True:
            keyboard.keep_history(session.keep_history)
            try:
                line = await keyboard.read()
            except Cleared as cleared:
                if cleared.empty:
                    print("Use Ctrl + d or /bye to exit.")
                continue
            except EOFError:
                print()
                return
            if line.startswith(("/bye", "/exit")):
                return
            if line.startswith("/") and not attach(line, session.card.capabilities).data:
                await _obey(session, line)
            elif line.strip():
                await _exchange(session, line, console)


async def _obey(session: Session, line: str) -> None:
    """Do what a `/command` says. Ctrl-C ends it, and not the conversation."""
    work = asyncio.ensure_future(command(session, line))
    with _interrupt(work):
        try:
            await work
        except asyncio.CancelledError:
            if not work.cancelled():
                raise
            print("\nStopped.")


async def _exchange(session: Session, line: str, console: Console) -> None:
    """Send a message and show the answer. Ctrl-C stops the answer; what was said of it stays in the conversation."""
    try:
        attached = attach(line, session.card.capabilities)
    except PunaError as error:
        print(f"Error: {error}", file=sys.stderr)
        return
    for note in attached.notes:
        print(note)
    session.add("user", attached.text, images=list(attached.data) or None)
    said = Transcript()
    answering = asyncio.ensure_future(_answer(session, said, console))
    with _interrupt(answering):
        try:
            await answering
        except asyncio.CancelledError:
            if not answering.cancelled():
                raise
            print("\n")
        except PunaError as error:
            session.messages.pop()
            print(f"Error: {error}", file=sys.stderr)
            return
    session.add("assistant", said.text, thinking=said.thinking or None)


async def _answer(session: Session, said: Transcript, console: Console) -> None:
    async with AsyncExitStack() as stack:
        with waiting("", console):
            answer = await stack.enter_async_context(session.server.chat(session.request()))
        tell_notices(answer)
        await show(answer, printer(word_wrap=session.ask.word_wrap, hide_thinking=session.ask.hide_thinking), said)
    print("\n")
    if session.ask.verbose and said.stats is not None:
        print(stats_text(said.stats), file=sys.stderr)


@contextmanager
def _interrupt(work: asyncio.Future[None]) -> Iterator[None]:
    """Inside, Ctrl-C cancels `work` and nothing else."""
    loop = asyncio.get_running_loop()
    before = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(work.cancel))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def history_path() -> Path:
    place = places.state() or places.temporary()
    return Path(os.devnull) if place is None else place / "history"
