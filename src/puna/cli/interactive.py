"""The conversation on a terminal: reads messages, shows answers, until `/bye` or Ctrl-D."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console

from puna.cli.answer import Transcript, printer, show, stats_text, tell_notices
from puna.cli.media import attach
from puna.cli.progress import waiting
from puna.cli.session import Session, command, open_model
from puna.errors import PunaError

PROMPT, MORE = ">>> ", "... "
PLACEHOLDER = "Send a message (/? for help)"
QUOTES = '"""'


async def converse(session: Session, console: Console) -> None:
    """Returns when the user has had enough."""
    with waiting(f"loading {session.model}", console):
        await open_model(session)
    history = _History(history_path())
    keyboard: PromptSession[str] = PromptSession(history=history, key_bindings=_keys(), enable_open_in_editor=True)
    while True:
        history.keep = session.keep_history
        try:
            line = await read_message(keyboard.prompt_async)
        except KeyboardInterrupt:
            print("\nUse Ctrl + d or /bye to exit.")
            continue
        except EOFError:
            print()
            return
        if line.startswith(("/bye", "/exit")):
            return
        if line.startswith("/") and not attach(line, session.card.capabilities).data:
            await command(session, line)
        elif line.strip():
            await _exchange(session, line, console)


Read = Callable[..., Coroutine[None, None, str]]


async def read_message(read: Read) -> str:
    """One message: a line, or all lines from an opening to a closing triple quote."""
    placeholder = FormattedText([("fg:ansibrightblack", PLACEHOLDER)])
    text = await read(PROMPT, placeholder=placeholder)
    opening = text.find(QUOTES)
    if opening != 0 and not (opening > 0 and text.startswith("/set system")):
        return text
    while text.count(QUOTES) < 2 or not text.endswith(QUOTES):
        text += "\n" + await read(MORE, placeholder="")
    return text if opening else text.removeprefix(QUOTES).removesuffix(QUOTES)


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


class _History(FileHistory):
    """What was typed, also on other days. `keep` False: no more is added."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        super().__init__(path)
        self.keep = True

    def store_string(self, string: str) -> None:
        if self.keep and not os.environ.get("OLLAMA_NOHISTORY"):
            super().store_string(string)


def history_path() -> Path:
    from platformdirs import user_state_path

    return user_state_path("puna", appauthor=False) / "history"


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-j")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-g")
    def edit(event: KeyPressEvent) -> None:
        event.current_buffer.open_in_editor()

    return keys
