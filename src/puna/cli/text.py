"""How numbers, times and tables look on a terminal. Pure: values in, text out; the caller says what time it is.

The forms are Ollama's, so that scripts which cut its columns keep working.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from unicodedata import east_asian_width

_SIZES = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB"))
_GAP = 4
_FOREVER = timedelta(days=20 * 365)


def human_bytes(count: int) -> str:
    """Decimal units: '98 MB', '2.0 GB', '512 B'. From 10 up cut to a whole number; below, one decimal unless whole."""
    for unit, word in _SIZES:
        if count >= unit:
            value = count / unit
            if value >= 10 or count % unit == 0:
                return f"{int(value)} {word}"
            return f"{value:.1f} {word}"
    return f"{count} B"


def human_duration(span: timedelta) -> str:
    """A rough length of time: 'Less than a second' … 'About an hour' … '3 weeks' … '2 years'."""
    seconds = int(span.total_seconds())
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = round(seconds / 3600)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 14:
        return f"{hours // 24} days"
    if hours < 24 * 60:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{seconds // 3600 // 24 // 365} years"


def human_past(moment: datetime, now: datetime) -> str:
    """'20 minutes ago'."""
    return f"{human_duration(now - moment)} ago"


def human_until(moment: datetime, now: datetime) -> str:
    """When a loaded model goes: '4 minutes from now', 'Stopping...' once it is due, 'Forever' past twenty years."""
    span = moment - now
    if span <= timedelta(0):
        return "Stopping..."
    if span > _FOREVER:
        return "Forever"
    return f"{human_duration(span)} from now"


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
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of left-aligned columns; each cell, also the last, is padded to its column plus four spaces."""
    lines = [headers, *rows]
    widths = [max(width(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(_line(line, widths) for line in lines)


def section(title: str, rows: Sequence[Sequence[str]]) -> str:
    """A titled block of `show`: the title indented by two, rows by four, a blank line after."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max((width(row[column]) for row in rows if column < len(row)), default=0) for column in range(columns)]
    body = "".join(f"    {_line(row, widths)}\n" for row in rows)
    return f"  {title}\n{body}\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(cell + " " * (widths[column] - width(cell) + _GAP) for column, cell in enumerate(cells))


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
