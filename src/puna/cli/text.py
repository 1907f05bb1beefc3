"""How numbers, times and tables look on a terminal. Pure: values in, text out; the caller says what time it is.

The forms are Ollama's, so that scripts which cut its columns keep working. On a terminal, of which `columns` are known,
they are made to fit where they do not.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from unicodedata import east_asian_width

_GAP, _NARROW_GAP = 4, 2
_LEAST_COLUMNS = 12
"""A column of text is not made narrower."""


def processor(size: int, size_vram: int) -> str:
    """Where a loaded model's bytes are: '100% CPU', '100% GPU', '25%/75% CPU/GPU', 'Unknown'."""
    if size_vram == 0:
        return "100% CPU"
    if size == 0 or size_vram > size:
        return "Unknown"
    if size_vram == size:
        return "100% GPU"
    cpu = round((size - size_vram) / size * 100)
    return f"{cpu}%/{100 - cpu}% CPU/GPU"


def go_duration(nanoseconds: int) -> str:
    """Nanoseconds as Go writes them: '0s', '753.164µs', '35.6ms', '1.195042399s', '1m2.5s'."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for unit, word in ((10**3, "ns"), (10**6, "µs"), (10**9, "ms")):
        if rest < unit:
            return f"{sign}{_decimal(rest, unit // 1000)}{word}"
    minutes, nanos = divmod(rest, 60 * 10**9)
    seconds = f"{_decimal(nanos, 10**9)}s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else f"{sign}{seconds}"


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    digits = str(fraction).zfill(len(str(unit)) - 1).rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)


def width(text: str) -> int:
    """Columns that a text takes; wide East Asian characters take two."""
    if text.isascii():  # as nearly all of a list is, which has thousands
        return len(text)
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], columns: int | None = None) -> str:
    """Lines of left-aligned columns; each cell, also the last, is padded to its column plus four spaces.

    Where the terminal is too narrow: plus two; and where that is too much, a block of lines for each row.
    """
    lines = [headers, *rows]
    widths = [max(width(line[column]) for line in lines) for column in range(len(headers))]
    if columns is None:
        return "\n".join(_line(line, widths, _GAP) for line in lines)
    for gap in (_GAP, _NARROW_GAP):
        fitting = [_line(line, widths, gap).rstrip() for line in lines]
        if all(width(line) <= columns for line in fitting):
            return "\n".join(fitting)
    return "\n".join(_block(headers, row, columns) for row in rows)


def _block(headers: Sequence[str], row: Sequence[str], columns: int) -> str:
    """A row by itself: its first cell, and under it what each other one is."""
    first, *others = row
    widest = max(map(width, headers[1:]), default=0)
    pairs = zip(headers[1:], others, strict=True)
    return "\n".join([first, *(line for pair in pairs for line in _narrow(pair, [widest], 2, columns))])


def section(title: str, rows: Sequence[Sequence[str]], columns: int | None = None) -> str:
    """A titled block of `show`: the title indented by two, rows by four, a blank line after.

    Where the terminal is too narrow, the last cell of a row goes on below.
    """
    most = max((len(row) for row in rows), default=0)
    widths = [max((width(row[column]) for row in rows if column < len(row)), default=0) for column in range(most)]
    lines = [f"    {_line(row, widths, _GAP)}" for row in rows]
    if columns is not None:
        lines = [line.rstrip() for line in lines]
        if any(width(line) > columns for line in lines):
            lines = [line for row in rows for line in _narrow(row, widths, 4, columns)]
    return "".join(f"{line}\n" for line in (f"  {title}", *lines, ""))


def _narrow(row: Sequence[str], widths: Sequence[int], indent: int, columns: int) -> list[str]:
    """Lines of a row whose last cell is broken between its words."""
    *first, last = row
    begin = " " * indent + _line(first, widths, _NARROW_GAP)
    room = max(columns - width(begin), _LEAST_COLUMNS)
    words = textwrap.wrap(last, room, break_long_words=False, break_on_hyphens=False) or [""]
    return [begin + words[0], *(" " * width(begin) + more for more in words[1:])]


def _line(cells: Sequence[str], widths: Sequence[int], gap: int) -> str:
    return "".join(cell + " " * (widths[column] - width(cell) + gap) for column, cell in enumerate(cells))


class WordWrap:
    """Breaks streamed text at `columns`, between words. Holds back a word until it is whole; `flush` gives the rest."""

    def __init__(self, columns: int) -> None:
        self._columns = max(columns, 1)
        self._used = 0
        self._word = ""

    def feed(self, text: str) -> str:
        out: list[str] = []
        for character in text:
            if character == "\n":
                out.append(self._place() + "\n")
                self._used = 0
            elif character.isspace():
                out.append(self._place() + self._space(character))
            elif east_asian_width(character) in "WF":
                out.append(self._place())
                self._word = character
            else:
                self._word += character
                if width(self._word) >= self._columns:
                    out.append(self._place())
        return "".join(out)

    def flush(self) -> str:
        return self._place()

    def _space(self, character: str) -> str:
        if self._used == 0:
            self._used = 1
            return character
        if self._used >= self._columns:
            return ""
        self._used += 1
        return character

    def _place(self) -> str:
        word, self._word = self._word, ""
        if not word:
            return ""
        columns = width(word)
        if self._used and self._used + columns > self._columns:
            self._used = columns
            return "\n" + word
        self._used += columns
        return word
