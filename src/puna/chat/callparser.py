"""Tool calls out of a model's text as it comes, whatever pieces it comes in.

Pure, one object an answer, never raises: what cannot be read as a call is text, and `parse_error` says why. White space
is ignored where the syntax has or lacks it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType
from typing import Literal, TypeAlias

from puna.grammar.schema import conforms
from puna.template.facts import PROBED_ID, CallSyntax
from puna.types import JsonValue, Tool

CUSTOM_ARGUMENT = "input"
"""The one argument by which a custom tool's free text travels."""
CUSTOM_PARAMETERS: Mapping[str, JsonValue] = MappingProxyType(
    {"type": "object", "properties": {CUSTOM_ARGUMENT: {"type": "string"}}, "required": [CUSTOM_ARGUMENT]}
)

_SPACE = " \t\r\n"
_ANY = "\0"
"""In a part of a CallForm: any letter or digit."""
NAME = r"^[^\s\x00-\x1f\x7f\"'`\\<>\[\]{}()|,;]+$"
"""What the name of a tool may be, as a regular expression: without white space and all that may stand around names."""

_NO_NAME = re.compile(r"[\s\x00-\x1f\x7f\"'`\\<>\[\]{}()|,;]")


@dataclass(frozen=True, slots=True)
class PieceText:
    """Text that belongs to no call."""

    text: str


@dataclass(frozen=True, slots=True)
class PieceCallStart:
    """A call begins. `written`: what the model wrote of the call before its arguments."""

    id: str
    name: str
    kind: Literal["function", "custom"] = "function"
    written: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class PieceCallArguments:
    """A part of the last call's arguments: JSON text as the model wrote it, or a custom tool's text."""

    text: str


Piece: TypeAlias = PieceText | PieceCallStart | PieceCallArguments


@dataclass(frozen=True, slots=True)
class CallForm:
    """A CallSyntax taken apart, without its white space: `opening` name `between` arguments `closing`.

    `mark` is found anywhere in the text; "": a call is known by `opening`, at the start only. `lead` and `trail` stand
    around all the calls of an array, `comma` between them; elsewhere they are empty.
    """

    mark: str
    lead: str
    opening: str
    between: str
    closing: str
    trail: str
    array: bool

    @classmethod
    def of(cls, syntax: CallSyntax) -> CallForm:
        before, after = syntax.before, syntax.after
        lead, trail = "", ""
        if syntax.array:
            cut, end = before.rindex("{"), after.index("}") + 1
            lead, before, after, trail = before[:cut], before[cut:], after[:end], after[end:]
        return cls(
            syntax.mark, _bare(lead), _bare(before), _bare(syntax.between), _bare(after), _bare(trail), syntax.array
        )


def _bare(text: str) -> str:
    return "".join(text.replace(PROBED_ID, _ANY * len(PROBED_ID)).split())


class _State(Enum):
    TEXT = auto()
    OPENING = auto()
    NAME = auto()
    BETWEEN = auto()
    VALUE = auto()
    ARGUMENTS = auto()
    CLOSING = auto()
    NEXT = auto()
    TRAIL = auto()
    PLAIN = auto()
    OVER = auto()


class CallParser:
    """Feed it text, then finish it. `form` None: nothing is a call.

    `repeated`: the last call was the one before it again, white space apart, so the model has ended. Such a call is not
    given, nor is what follows it: its pieces are held back as long as it could become one.
    """

    def __init__(self, form: CallForm | None, tools: Mapping[str, Tool], new_id: Callable[[], str]) -> None:
        self.parse_error: str | None = None
        self._tools = tools
        self._new_id = new_id
        self._out: list[Piece] = []
        self._blank = ""
        self._held = ""
        self._left = ""
        self._name = ""
        self._raw: list[str] = []
        self._said: list[str] = []
        self._arguments = _Arguments()
        self._called = False
        self.repeated = False
        self._tight = _Tight()
        self._before: tuple[str, str] | None = None
        """The call before: its tool, and its arguments without white space."""
        self._doubtful: list[Piece] | None = None
        if form is None:
            self._form, self._state = _NO_FORM, _State.PLAIN
        else:
            self._form, self._state = form, _State.TEXT
            if not form.mark:
                self._begin(form.lead + form.opening)

    def feed(self, text: str) -> list[Piece]:
        """What `text` adds: joined over all feeds it is the same however the text was cut."""
        self._out = []
        at = 0
        while at < len(text):
            at = self._step(text, at)
        return self._out

    def finish(self) -> list[Piece]:
        """What was held back, once the model has ended."""
        self._out = []
        match self._state:
            case _State.TEXT if self._called and self._held.strip():
                self._error("a tool call ended before its arguments")  # within its mark
                self._text(self._held)
            case _State.TEXT:
                self._text("" if self._called else self._held)
            case _State.OPENING | _State.NAME if not self._form.mark and not self._called:
                self._text(self._held)
            case _State.OPENING | _State.NAME | _State.BETWEEN | _State.VALUE if self._held.strip():
                self._fail("a tool call ended before its arguments")
            case _State.ARGUMENTS:
                self._release()
                self._error(f"the arguments of {self._name} ended too early")
            case _:
                pass
        self._held = ""
        return self._out

    # -- one step a state

    def _step(self, text: str, at: int) -> int:
        match self._state:
            case _State.PLAIN:
                self._text(text[at:])
                return len(text)
            case _State.OVER:
                return len(text)
            case _State.TEXT:
                return self._find_mark(text, at)
            case _State.OPENING | _State.BETWEEN | _State.CLOSING | _State.TRAIL:
                return self._expect(text, at)
            case _State.NAME:
                return self._read_name(text, at)
            case _State.VALUE:
                return self._find_value(text, at)
            case _State.ARGUMENTS:
                return self._read_arguments(text, at)
            case _:
                return self._next(text, at)

    def _find_mark(self, text: str, at: int) -> int:
        """Text up to the mark; white space before it, and what could be its beginning, is held back."""
        mark, all_of = self._form.mark, self._held + text[at:]
        found = all_of.find(mark)
        if found >= 0:
            before = all_of[:found].rstrip()
            self._text(before)
            at += found + len(mark) - len(self._held)
            self._blank = all_of[len(before) : found]
            self._begin((self._form.lead + self._form.opening)[len(_bare(mark)) :])
            self._held = mark
            return at
        keep = next((n for n in range(min(len(mark) - 1, len(all_of)), 0, -1) if all_of.endswith(mark[:n])), 0)
        body = all_of[: len(all_of) - keep].rstrip()
        self._text(body)
        self._held = all_of[len(body) :]
        return len(text)

    def _begin(self, expected: str) -> None:
        """A call may begin: what its syntax wants before the name."""
        self._state, self._left, self._held, self._name = _State.OPENING, expected, "", ""
        if not expected:
            self._state = _State.NAME

    def _expect(self, text: str, at: int) -> int:
        """Match what the syntax has here, character by character, without its white space."""
        char = text[at]
        if char in _SPACE:
            self._held += char
            return at + 1
        if char != self._left[0] and not (self._left[0] == _ANY and char.isalnum()):
            return self._mismatch(at)
        self._held += char
        self._left = self._left[1:]
        if not self._left:
            self._reached()
        return at + 1

    def _reached(self) -> None:
        """All that was expected is there."""
        match self._state:
            case _State.OPENING:
                self._state = _State.NAME
            case _State.BETWEEN:
                self._state = _State.VALUE
            case _State.CLOSING if self._form.array:
                self._state, self._held = _State.NEXT, ""
            case _ if self._form.mark:
                self._state, self._held, self._blank = _State.TEXT, "", ""
            case _:
                self._begin(self._form.lead + self._form.opening)

    def _mismatch(self, at: int) -> int:
        held, state = self._held, self._state
        if state is _State.OPENING and not self._form.mark:
            # A bare syntax: this is no call but the answer itself.
            self._text(held)
            self._held, self._state = "", _State.PLAIN
        elif state in (_State.CLOSING, _State.TRAIL):
            self._error(f"unexpected text after the call of {self._name}")
            self._text(held)
            self._held, self._state = "", _State.TEXT if self._form.mark else _State.PLAIN
        else:
            self._fail("a tool call that is not written as one")
        return at

    def _read_name(self, text: str, at: int) -> int:
        end, after = at, self._form.between[:1]
        while end < len(text) and not _NO_NAME.match(text[end]):
            if text[end] == after and self._name + text[at:end] in self._tools:
                break
            end += 1
        self._name += text[at:end]
        self._held += text[at:end]
        if end < len(text):
            if self._name in self._tools:
                self._state, self._left = _State.BETWEEN, self._form.between
            elif self._form.mark:
                self._fail(f"a call of {self._name!r}, which is not one of the tools")
            else:
                self._text(self._held)
                self._held, self._state = "", _State.PLAIN
        return end

    def _find_value(self, text: str, at: int) -> int:
        char = text[at]
        if char == "{":
            written = self._blank + self._held
            start = PieceCallStart(self._new_id(), self._name, self._tools[self._name].kind, written)
            self._doubtful = [] if self._before is not None and self._before[0] == self._name else None
            (self._out if self._doubtful is None else self._doubtful).append(start)
            self._state, self._called = _State.ARGUMENTS, True
            self._arguments, self._raw, self._said, self._tight = _Arguments(), [], [], _Tight()
            return at
        if char not in _SPACE:
            self._fail("a tool call without a JSON object of arguments")
            return at
        self._held += char
        return at + 1

    def _read_arguments(self, text: str, at: int) -> int:
        end = self._arguments.read(text, at)
        part = text[at:end]
        self._raw.append(part)
        tool = self._tools[self._name]
        shown = self._arguments.unwrap(part) if tool.kind == "custom" else self._arguments.mended(part)
        self._said.append(shown)
        if shown and self._doubtful is not None:
            self._doubtful.append(PieceCallArguments(shown))
        elif shown:
            self._add(PieceCallArguments(shown))
        if self._is_again(self._tight.add(part)):
            self.repeated, self._doubtful, self._state = True, None, _State.OVER
            return end
        if self._arguments.done:
            self._before = self._name, self._tight.text
            self._check(tool, "".join(self._raw if tool.kind == "custom" else self._said))
            self._state, self._left, self._held = _State.CLOSING, self._form.closing, ""
            if not self._left:
                self._reached()
        return end

    def _is_again(self, part: str) -> bool:
        """Whether the call that `part` ends is the one before. What differs is held back no longer."""
        if self._doubtful is None or self._before is None:
            return False
        read = self._tight.size
        same = self._before[1].startswith(part, read - len(part))
        if same and self._arguments.done and read == len(self._before[1]):
            return True
        if not same or self._arguments.done:
            self._release()
        return False

    def _release(self) -> None:
        for piece in self._doubtful or ():
            if isinstance(piece, PieceCallStart):
                self._out.append(piece)
            elif isinstance(piece, PieceCallArguments):
                self._add(piece)
        self._doubtful = None

    def _check(self, tool: Tool, arguments: str) -> None:
        wrong = conforms(arguments, dict(CUSTOM_PARAMETERS) if tool.kind == "custom" else tool.parameters)
        if wrong is not None:
            self._error(f"the arguments of {tool.name} do not fit its parameters: {wrong}")

    def _next(self, text: str, at: int) -> int:
        """Inside an array, after a call: another one, or its end."""
        char = text[at]
        if char in _SPACE:
            return at + 1
        if char == ",":
            self._begin(self._form.opening)
            return at + 1
        self._state, self._left, self._held = _State.TRAIL, self._form.trail, ""
        return at

    # -- out

    def _fail(self, why: str) -> None:
        """What was taken for a call is text, and the search goes on after it."""
        self._error(why)
        self._text(self._blank + self._held)
        self._held, self._blank, self._state = "", "", _State.TEXT if self._form.mark else _State.PLAIN

    def _error(self, why: str) -> None:
        if self.parse_error is None:
            self.parse_error = why

    def _text(self, text: str) -> None:
        if text:
            self._add(PieceText(text))

    def _add(self, piece: PieceText | PieceCallArguments) -> None:
        """Neighbours of one kind become one piece."""
        last = self._out[-1] if self._out else None
        if isinstance(last, PieceText) and isinstance(piece, PieceText):
            self._out[-1] = PieceText(last.text + piece.text)
        elif isinstance(last, PieceCallArguments) and isinstance(piece, PieceCallArguments):
            self._out[-1] = PieceCallArguments(last.text + piece.text)
        else:
            self._out.append(piece)


_NO_FORM = CallForm("", "", "", "", "", "", False)


class _Tight:
    """A JSON text, piece by piece, without the white space outside its strings."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._inside = False
        self._escaped = False
        self.size = 0

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def add(self, part: str) -> str:
        """What `part` adds to `text`."""
        kept = []
        for char in part:
            if self._inside:
                self._inside = char != '"' or self._escaped
                self._escaped = char == "\\" and not self._escaped
            elif char in _SPACE:
                continue
            else:
                self._inside = char == '"'
            kept.append(char)
        added = "".join(kept)
        self._parts.append(added)
        self.size += len(added)
        return added


class _Arguments:
    """Where a JSON value ends, and, for a custom tool, the text inside `{"input": "…"}`."""

    def __init__(self) -> None:
        self.done = False
        self._depth = 0
        self._string = False
        self._escaped = False
        self._seen = ""
        self._open = False
        self._shut = False
        self._escape = ""

    def read(self, text: str, at: int) -> int:
        """Read on from `at`; the position where the value ended (`done`), or the end of the text."""
        for index in range(at, len(text)):
            char = text[index]
            if self._string:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == '"':
                    self._string = False
            elif char == '"':
                self._string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.done = True
                    return index + 1
        return len(text)

    def mended(self, part: str) -> str:
        """What `part` adds, with U+FFFD for each half of a surrogate pair that stands alone: no client could send it
        back, and many cannot read it. What may become one is held back.
        """
        return part if not self._escape and "\\" not in part else "".join(self._units(part))

    def unwrap(self, part: str) -> str:
        """The text that `part` adds inside the one string argument, its escapes undone."""
        out: list[str] = []
        for unit in self._units(part):
            if self._shut:
                break
            if not self._open:
                self._seen = (self._seen + unit) if unit not in _SPACE else self._seen
                self._open = self._seen == f'{{"{CUSTOM_ARGUMENT}":"'
            elif unit == '"':
                self._shut = True
            else:
                out.append(_undone(unit))
        return "".join(out)

    def _units(self, part: str) -> Iterator[str]:
        """Its characters, and its escapes once they are complete: a pair of surrogates is one, and half a pair is that
        of U+FFFD.
        """
        for char in part:
            if len(self._escape) == _HALF and char != "\\":
                self._escape = ""
                yield _UNKNOWN
            if self._escape or char == "\\":
                self._escape += char
                yield from self._complete()
            else:
                yield char

    def _complete(self) -> Iterator[str]:
        escape = self._escape
        if len(escape) < 2 or (escape[1] == "u" and len(escape) < _HALF):
            return
        kind = escape[2:4].lower() if escape[1] == "u" else ""
        if kind in _HIGH_HALVES:
            second = escape[_HALF:]
            if len(second) < 2 or (second[1] == "u" and len(second) < _HALF):
                return
            if second[1] != "u" or second[2:4].lower() not in _LOW_HALVES:
                yield _UNKNOWN
                self._escape = second
                yield from self._complete()
                return
        self._escape = ""
        yield _UNKNOWN if kind in _LOW_HALVES else escape


def _undone(unit: str) -> str:
    """The character that an escape stands for; any other as it is, and so an escape that is none."""
    if unit[0] != "\\":
        return unit
    try:
        text: str = json.loads(f'"{unit}"')
    except ValueError:
        return unit
    return text


_HALF = 6
"""Characters of an escape with a code; those of a pair are two of them."""
_UNKNOWN = "\\ufffd"
_HIGH_HALVES = frozenset({"d8", "d9", "da", "db"})
_LOW_HALVES = frozenset({"dc", "dd", "de", "df"})
