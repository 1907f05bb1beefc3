"""Progress on a terminal and elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import StringIO

from rich.console import Console

from puna.cli.progress import Bars, Lines, follow, reporter, waiting
from puna.types import Progress

STEPS = (
    Progress("pulling manifest"),
    Progress("pulling manifest"),
    Progress("pulling 941f309b54ca", "sha256:94", 98_000_000),
    Progress("pulling 941f309b54ca", "sha256:94", 98_000_000, 49_000_000),
    Progress("pulling 941f309b54ca", "sha256:94", 98_000_000, 98_000_000),
    Progress("pulling 941f309b54ca", "sha256:94", 98_000_000, 98_000_000),
    Progress("success"),
)


def console(*, terminal: bool) -> tuple[Console, StringIO]:
    out = StringIO()
    return Console(file=out, force_terminal=terminal, width=100, highlight=False, soft_wrap=True), out


async def steps() -> AsyncIterator[Progress]:
    for step in STEPS:
        yield step


async def test_elsewhere_each_thing_is_told_once() -> None:
    where, out = console(terminal=False)
    await follow(steps(), where)
    assert out.getvalue().splitlines() == [
        "pulling manifest",
        "pulling 941f309b54ca: 98 MB",
        "pulling 941f309b54ca: done",
        "success",
    ]


async def test_a_terminal_has_bars_with_bytes_and_per_cent() -> None:
    where, out = console(terminal=True)
    await follow(steps(), where)
    text = out.getvalue()
    assert text.count("pulling manifest") == 1
    assert "100%" in text
    assert "98.0/98.0 MB" in text


def test_names_in_brackets_are_no_markup() -> None:
    for terminal in (True, False):
        where, out = console(terminal=terminal)
        with reporter(where) as shown:
            shown.show(Progress("copying [bold]x[/bold]"))
        assert "copying [bold]x[/bold]" in out.getvalue()


def test_the_place_decides_the_form() -> None:
    assert isinstance(reporter(console(terminal=True)[0]), Bars)
    assert isinstance(reporter(console(terminal=False)[0]), Lines)


def test_waiting_shows_nothing_elsewhere() -> None:
    where, out = console(terminal=False)
    with waiting("loading", where):
        pass
    assert out.getvalue() == ""
