"""A large JSON text, parsed in pieces, so that no step of it holds the interpreter for long. Pure.

The parser reads in one call, and nothing else runs meanwhile: a second of 60 MB is a second for everybody. So a large
text is first walked through: brackets, commas and strings, nothing else is looked at. The walk counts what the text
holds and refuses what is over a limit, before anything is built; and it finds where long strings and large containers
can be cut. What lies between two cuts is read by the parser, which alone decides what JSON is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from puna.types import JsonValue

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE = 64 * 1024
"""Bytes that the parser reads in one call, but for one member more."""
MAX_VALUES = 1_000_000
"""Values of a text: texts, numbers, lists, objects."""
MAX_KEYS = 500_000
"""Names of members, of all objects together."""
MAX_MEMBERS = 50_000
"""Of them, in one object."""
MAX_KEY = 64 * 1024
"""Bytes of one of them."""
MAX_STRING = 40 * 1024 * 1024
"""Bytes of one text: a sound of the size that is allowed, in base64, is one."""
MAX_DEPTH = 128
"""Lists and objects inside of each other."""

_WINDOW = 256 * 1024
_TOKEN = re.compile(rb'["\[\]{},]')
_LOW_SURROGATE = re.compile(rb"\\u[dD][c-fC-F]")
_LONGEST = 4 * PIECE
"""Of a number, or of white space."""


class NotJson(ValueError):
    """The text is no JSON, or is over a limit; the message says which."""


@dataclass(slots=True)
class _Large:
    """A container or a text over PIECE: where it begins and ends, and for a container where it may be cut.

    `cuts` are where runs of members begin; `inside` are the large ones, by the beginning of their run, which they are.
    """

    start: int
    opener: int
    end: int = 0
    cuts: list[int] = field(default_factory=list)
    inside: dict[int, _Large] = field(default_factory=dict)
    member: int = 0
    members: int = 0
    key_next: bool = False

    @property
    def size(self) -> int:
        return self.end - self.start


_QUOTE, _BRACKET, _BRACE = b'"[{'
_CLOSES = {ord("]"): _BRACKET, ord("}"): _BRACE}


def parse_in_pieces(text: bytes, parse: Callable[[bytes], JsonValue]) -> JsonValue:
    """The value of a JSON text that is an object or a list. `parse` reads a small text (ValueError). Raises NotJson."""
    return _Builder(text, parse).value(_walk(text))


# ------------------------------------------------------------------------------------------------------------- walk


def _windows(text: bytes) -> Iterator[tuple[int, bytes]]:
    """The text, a window at a time, with its place; what is escaped in strings is blotted out, byte for byte."""
    at = 0
    while at < len(text):
        window = text[at : at + _WINDOW]
        if (len(window) - len(window.rstrip(b"\\"))) % 2 and len(window) > 1:
            window = window[:-1]
        yield at, window.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        at += len(window)


class _Walk:
    """Brackets, commas and strings of a text as they come."""

    def __init__(self) -> None:
        self.root: _Large | None = None
        self._open: list[_Large] = []
        self._values = 1
        self._keys = 0
        self.string: int | None = None
        """Where the string begins that is not closed yet."""

    def quote(self, at: int) -> None:
        """The end of a string."""
        start, self.string = self.string, None
        assert start is not None
        length = at + 1 - start
        if not self._open:
            raise NotJson("expected an object or a list")
        frame = self._open[-1]
        if frame.key_next:
            frame.key_next = False
            self._keys += 1
            frame.members += 1
            if length > MAX_KEY:
                raise NotJson(f"the name of a member is longer than {MAX_KEY} bytes")
            if frame.members > MAX_MEMBERS:
                raise NotJson(f"one of its objects has more than {MAX_MEMBERS} members")
            if self._keys > MAX_KEYS:
                raise NotJson(f"its objects have more than {MAX_KEYS} members together")
        elif length > PIECE:
            if length > MAX_STRING:
                raise NotJson(f"a text is longer than {MAX_STRING} bytes")
            self._large(frame, _Large(start, _QUOTE, at + 1))

    def bracket(self, at: int, opener: int) -> None:
        if self.root is not None:
            raise NotJson(f"trailing characters at byte {at}")
        self._count()
        self._open.append(_Large(at, opener, cuts=[at + 1], member=at + 1, key_next=opener == _BRACE))
        if len(self._open) > MAX_DEPTH:
            raise NotJson(f"its lists and objects are more than {MAX_DEPTH} deep")

    def close(self, at: int, opener: int) -> None:
        if not self._open or self._open[-1].opener != opener:
            raise NotJson(f"nothing is open that byte {at} could close")
        closed = self._open.pop()
        closed.end = at + 1
        if not self._open:
            self.root = closed
        elif closed.inside or closed.size > PIECE:
            self._large(self._open[-1], closed)

    def comma(self, at: int) -> None:
        if not self._open:
            raise NotJson(f"trailing characters at byte {at}" if self.root else "expected an object")
        self._count()
        frame = self._open[-1]
        if frame.cuts[-1] in frame.inside or at - frame.cuts[-1] >= PIECE:
            frame.cuts.append(at + 1)
        frame.member = at + 1
        frame.key_next = frame.opener == _BRACE

    def _large(self, frame: _Large, child: _Large) -> None:
        """A member that is built by itself."""
        if frame.member != frame.cuts[-1]:
            frame.cuts.append(frame.member)
        if frame.member in frame.inside:
            raise NotJson(f"expected a comma before byte {child.start}")
        frame.inside[frame.member] = child

    def _count(self) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise NotJson(f"it has more than {MAX_VALUES} values")


def _walk(text: bytes) -> _Large:
    walk = _Walk()
    for base, window in _windows(text):
        at = 0
        while True:
            if walk.string is not None:
                end = window.find(b'"', at)
                if end < 0:
                    break
                walk.quote(base + end)
                at = end + 1
            found = _TOKEN.search(window, at)
            if found is None:
                break
            at = found.end()
            token, place = window[found.start()], base + found.start()
            if token == _QUOTE:
                walk.string = place
            elif token in _CLOSES:
                walk.close(place, _CLOSES[token])
            elif token == 0x2C:
                walk.comma(place)
            else:
                walk.bracket(place, token)
    if walk.root is None or walk.string is not None:
        raise NotJson(f"it ends too early, at byte {len(text)}")
    return walk.root


# ------------------------------------------------------------------------------------------------------------ build


class _Builder:
    def __init__(self, text: bytes, parse: Callable[[bytes], JsonValue]) -> None:
        self._text = text
        self._parser = parse

    def value(self, root: _Large) -> JsonValue:
        for outside in (self._text[: root.start], self._text[root.end :]):
            if outside.strip(b" \t\r\n"):
                raise NotJson("trailing characters" if root.start == 0 else "expected an object")
        return self._build(root)

    def _build(self, large: _Large) -> JsonValue:
        if large.opener == _QUOTE:
            return "".join(self._strings(large.start + 1, large.end - 1))
        members: dict[str, JsonValue] = {}
        items: list[JsonValue] = []
        ends = [*(cut - 1 for cut in large.cuts[1:]), large.end - 1]
        for start, end in zip(large.cuts, ends, strict=True):
            child = large.inside.get(start)
            if child is None:
                run = self._run(large.opener, start, self._text[start:end])
            else:
                run = self._run(
                    large.opener, start, self._text[start : child.start], b"null", self._text[child.end : end]
                )
            if not run and len(ends) > 1:
                raise NotJson(f"expected a value at byte {end}")
            if child is not None and not self._place_held(run):
                raise NotJson(f"expected a comma near byte {child.start}")
            if isinstance(run, dict):
                members.update(run if child is None else dict.fromkeys(run, self._build(child)))
            elif isinstance(run, list):
                items.extend(run if child is None else [self._build(child)])
        return members if large.opener == _BRACE else items

    @staticmethod
    def _place_held(run: JsonValue) -> bool:
        """Whether a run is the one `null` that stands for a large member."""
        return run == [None] or (isinstance(run, dict) and [*run.values()] == [None])

    def _run(self, opener: int, start: int, *parts: bytes) -> JsonValue:
        """What the parser makes of some members."""
        text = b"".join(parts)
        if len(text) > _LONGEST:
            raise NotJson(f"a number, or white space, is longer than {_LONGEST - PIECE} bytes")
        return self._parse(b"{%s}" % text if opener == _BRACE else b"[%s]" % text, start)

    def _strings(self, start: int, end: int) -> Iterator[str]:
        while start < end:
            cut = _cut(self._text, start, min(start + PIECE, end), end)
            piece = self._parse(b'"%s"' % self._text[start:cut], start)
            assert isinstance(piece, str)
            yield piece
            start = cut

    def _parse(self, text: bytes, start: int) -> JsonValue:
        try:
            return self._parser(text)
        except ValueError as error:
            cause = str(error).partition(" at line ")[0]
            raise NotJson(f"{cause}, behind byte {start}") from error


def _cut(text: bytes, start: int, cut: int, end: int) -> int:
    """The last place up to `cut` where a string may be cut: between characters, escapes and pairs of surrogates."""
    if cut >= end:
        return end
    back = text.rfind(b"\\", max(start, cut - 6), cut)
    if back >= 0:
        run = text[start : back + 1]
        if (len(run) - len(run.rstrip(b"\\"))) % 2 and cut < back + (6 if text[back + 1] == 0x75 else 2):
            cut = back
    if _LOW_SURROGATE.match(text, cut):
        cut -= 6
    while cut > start and 0x80 <= text[cut] <= 0xBF:
        cut -= 1
    return cut if cut > start else end
