"""The keyboard of a conversation: reads messages, keeps what was typed before, and what is typed too early."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

PROMPT, MORE = ">>> ", "... "
PLACEHOLDER = "Send a message (/? for help)"
QUOTES = '"""'


class Cleared(Exception):
    """Ctrl-C: the line that was begun is not to be sent. `empty`: there was nothing on it."""

    def __init__(self, *, empty: bool) -> None:
        super().__init__()
        self.empty = empty


class Keyboard:
    """Use in `with`. `keep_history`: whether what is typed from now on is kept for other days."""

    def __init__(self, history: Path) -> None:
        self._history = _history(history)
        self._lines: PromptSession[str] = PromptSession(
            history=self._history,
            key_bindings=_keys(),
            enable_open_in_editor=True,
            # An open block takes Enter as a new line, so that it is edited, and comes back, as one message.
            multiline=Condition(lambda: is_open(get_app().current_buffer.text)),
            prompt_continuation=MORE,
            placeholder=FormattedText([("fg:ansibrightblack", PLACEHOLDER)]),
        )

    def keep_history(self, wanted: bool) -> None:
        if isinstance(self._history, _FileHistory):
            self._history.keep = wanted and not os.environ.get("OLLAMA_NOHISTORY")

    async def read(self) -> str:
        """The next message, without the quotes of a block. EOFError for Ctrl-D, Cleared for Ctrl-C."""
        return unquoted(await self._lines.prompt_async(PROMPT))


def is_open(text: str) -> bool:
    """Whether a block was begun with triple quotes, also after `/set system`, and is not closed yet."""
    opening = text.find(QUOTES)
    if opening != 0 and not (opening > 0 and text.startswith("/set system")):
        return False
    return text.count(QUOTES) < 2 or not text.endswith(QUOTES)


def unquoted(text: str) -> str:
    """A block without its quotes; a command keeps them."""
    return text.removeprefix(QUOTES).removesuffix(QUOTES) if text.startswith(QUOTES) else text


@contextmanager
def unheard() -> Iterator[None]:
    """Inside, the terminal shows nothing of what is typed and keeps it as it is, for whoever reads the keyboard next.

    Ctrl-C goes on to interrupt. Without this, Enter would arrive as another key, in the midst of an answer's text.
    """
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    try:
        before = termios.tcgetattr(sys.stdin)
    except (termios.error, ValueError, OSError):  # no terminal
        yield
        return
    quiet = [*before[:6], list(before[6])]
    quiet[0] &= ~termios.ICRNL
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        with suppress(termios.error, OSError):  # the terminal is gone
            termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def _history(path: Path) -> History:
    """On the disk; without a place that can be written, for this conversation only, which is said."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.read_bytes()
        if not os.access(path, os.W_OK):
            raise PermissionError(None, "it cannot be written")
    except OSError as error:
        print(f"Warning: what you type is not kept for later ({path}: {error.strerror or error})", file=sys.stderr)
        return InMemoryHistory()
    return _FileHistory(path)


class _FileHistory(FileHistory):
    """`keep` False: no more is added to the file."""

    keep = True

    def store_string(self, string: str) -> None:
        if self.keep:
            with suppress(OSError):  # a full disk ends no conversation
                super().store_string(string)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-j")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-g")
    def edit(event: KeyPressEvent) -> None:
        if editor := os.environ.get("OLLAMA_EDITOR"):
            os.environ["VISUAL"] = editor
        event.current_buffer.open_in_editor()

    @keys.add("c-c")
    def clear(event: KeyPressEvent) -> None:
        event.app.exit(exception=Cleared(empty=not event.current_buffer.text), style="class:aborting")

    return keys
