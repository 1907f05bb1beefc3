"""How a streamed answer is shown: text to stdout as it comes, thinking marked, words not broken, counts on stderr."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TextIO

from puna.cli import screen
from puna.cli.text import WordWrap, go_duration
from puna.client.answers import AnswerStream, MadeCall, Stats

_GREY, _PLAIN = "\x1b[90m", "\x1b[0m"
_MARGIN = 5
_NARROW = 40
"""A terminal of fewer columns has none to leave free."""


@dataclass(slots=True)
class Transcript:
    """What an answer has said so far. `stats`: once it is done."""

    text: str = ""
    thinking: str = ""
    stats: Stats | None = None


class Printer:
    """Writes the pieces of one answer. `columns` None: lines are not broken. `colour`: thinking is grey."""

    def __init__(self, out: TextIO, *, columns: int | None, colour: bool, hide_thinking: bool) -> None:
        self._out = out
        self._wrap = None if columns is None else WordWrap(columns - _MARGIN if columns > _NARROW else columns)
        self._colour = colour
        self._hide_thinking = hide_thinking
        self._thinking = False

    def text(self, text: str) -> None:
        if text and self._thinking:
            self._end_thinking()
        self._write(text)

    def thinking(self, text: str) -> None:
        if not text or self._hide_thinking:
            return
        if not self._thinking:
            self._thinking = True
            self._write(f"{_GREY if self._colour else ''}Thinking...\n")
        self._write(text)

    def call(self, call: MadeCall) -> None:
        self.text(f"The model called a function that is not there: {call.name}({call.arguments})\n")

    def end(self) -> None:
        if self._thinking:
            self._end_thinking()
        if self._wrap is not None:
            self._out.write(self._wrap.flush())
        self._out.flush()

    def _end_thinking(self) -> None:
        self._thinking = False
        self._write(f"\n...done thinking.{_PLAIN if self._colour else ''}\n\n")

    def _write(self, text: str) -> None:
        self._out.write(text if self._wrap is None else self._wrap.feed(text))
        self._out.flush()


def printer(*, word_wrap: bool, hide_thinking: bool) -> Printer:
    """A Printer to stdout as it is now: lines are broken, and colours used, on a terminal only.

    No colours where the terminal has none (TERM=dumb) or the user wants none (NO_COLOR).
    """
    terminal = sys.stdout.isatty()
    columns = screen.columns() if word_wrap else None
    colour = terminal and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
    return Printer(sys.stdout, columns=columns, colour=colour, hide_thinking=hide_thinking)


async def show(answer: AnswerStream, printer: Printer, said: Transcript) -> None:
    """Print an answer to its end, and write it down in `said`. The printer is ended also when it breaks off."""
    try:
        async for chunk in answer.chunks:
            printer.thinking(chunk.thinking)
            printer.text(chunk.text)
            for call in chunk.calls:
                printer.call(call)
            said.text += chunk.text
            said.thinking += chunk.thinking
            said.stats = chunk.stats
    finally:
        printer.end()


def tell_notices(answer: AnswerStream) -> None:
    """What the server reports about the request, on stderr."""
    for notice in answer.notices:
        print(f"Warning: {notice}", file=sys.stderr)


def stats_text(stats: Stats) -> str:
    """The lines of `--verbose`: only what was measured."""
    lines = [
        ("total duration", go_duration(stats.total_ns) if stats.total_ns else ""),
        ("load duration", go_duration(stats.load_ns) if stats.load_ns else ""),
        ("prompt eval count", f"{stats.prompt_tokens} token(s)" if stats.prompt_tokens else ""),
        ("prompt eval duration", go_duration(stats.prompt_ns) if stats.prompt_ns else ""),
        ("prompt eval rate", _rate(stats.prompt_tokens, stats.prompt_ns)),
        ("eval count", f"{stats.tokens} token(s)" if stats.tokens else ""),
        ("eval duration", go_duration(stats.decode_ns) if stats.decode_ns else ""),
        ("eval rate", _rate(stats.tokens, stats.decode_ns)),
    ]
    return "\n".join(f"{label + ':':<22}{value}" for label, value in lines if value)


def _rate(tokens: int, nanoseconds: int) -> str:
    return f"{tokens / nanoseconds * 1e9:.2f} tokens/s" if tokens and nanoseconds else ""
