"""How a streamed answer looks."""

from __future__ import annotations

from io import StringIO

from puna.cli.answer import Printer, stats_text
from puna.client.answers import MadeCall, Stats


def printed(*, hide: bool = False, colour: bool = False) -> tuple[Printer, StringIO]:
    out = StringIO()
    return Printer(out, columns=None, colour=colour, hide_thinking=hide), out


def test_thinking_stands_between_its_marks() -> None:
    printer, out = printed()
    printer.thinking("Let me ")
    printer.thinking("see.")
    printer.text("42")
    printer.end()
    assert out.getvalue() == "Thinking...\nLet me see.\n...done thinking.\n\n42"


def test_thinking_is_grey_on_a_terminal() -> None:
    printer, out = printed(colour=True)
    printer.thinking("hm")
    printer.end()
    assert out.getvalue() == "\x1b[90mThinking...\nhm\n...done thinking.\x1b[0m\n\n"


def test_hidden_thinking_leaves_no_trace() -> None:
    printer, out = printed(hide=True)
    printer.thinking("hm")
    printer.text("42")
    printer.end()
    assert out.getvalue() == "42"


def test_a_tool_call_is_told() -> None:
    printer, out = printed()
    printer.call(MadeCall("add", '{"a": 1}'))
    printer.end()
    assert 'add({"a": 1})' in out.getvalue()


def test_stats_are_those_that_were_measured() -> None:
    text = stats_text(Stats(1_195_042_399, 753_164, 12, 9_586_000, 29, 0))
    assert text.splitlines() == [
        "total duration:       1.195042399s",
        "load duration:        753.164µs",
        "prompt eval count:    12 token(s)",
        "prompt eval duration: 9.586ms",
        "prompt eval rate:     1251.83 tokens/s",
        "eval count:           29 token(s)",
    ]
