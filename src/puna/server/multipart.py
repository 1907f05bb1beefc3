"""Forms with files (multipart/form-data), read as they come: fields into memory, files to whoever keeps them.

No file is ever whole in memory. Everything has a bound (`FormBounds`), and every fault is a 400 or a 413 that names the
field. Codings of the body (`Content-Encoding`) are taken off on the way.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from puna.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from puna.lane import in_lane
from puna.server.encoding import Decoder
from puna.types import JsonObject, JsonValue

MAX_HEADERS = 8
"""Header lines of one part."""
MAX_HEADER = 4096
"""Bytes of one of them."""
MAX_NAME = 256
"""Bytes of the name of a field."""
MAX_FILENAME = 1024
"""Bytes of the name of a file."""
MAX_DEPTH = 4
"""Parts of a name: `a[b][c]` has three."""

_SILENT = logging.Logger("forms", logging.CRITICAL + 1)
_PIECE = 64 * 1024
"""Bytes that are parsed in one go."""
_SMALL = 8 * 1024
"""Up to so many, in the loop itself."""
_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})
_CHARSETS = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii"})
_ESCAPED = re.compile("%(22|0D|0A)", re.IGNORECASE)
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]+\])*)(\[\])?")
_EXTENDED = re.compile(r";\s*filename\*\s*=\s*utf-8'[^']*'([^;\s\"]*)", re.IGNORECASE)
"""A file's name that is not ASCII, as some write it though the standard of forms does not."""

Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class FormBounds:
    """What a form may hold.

    `files`: the names of the fields that are files, one file each; `file`: bytes of one; `fields`: how many others;
    `field`: bytes of one of them. `setting`: the variable that sets `file`, for the error.
    """

    files: tuple[str, ...] = ("file",)
    file: int
    fields: int = 100
    field: int = 64 * 1024
    setting: str = ""

    @property
    def together(self) -> int:
        """Bytes of a body that holds all of it, with the lines between."""
        line = (MAX_HEADERS + 1) * (MAX_HEADER + 128)
        return len(self.files) * (self.file + line) + self.fields * (self.field + line) + _PIECE


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file that is under way: the name of its field, its own name and type as its sender calls them, and its bytes.

    `chunks` can be read once, and gives at most 64 KiB at a time. It raises PayloadTooLarge once the file is too large,
    and InvalidRequest when the form breaks off or is none.
    """

    field: str
    filename: str
    media_type: str
    chunks: AsyncIterator[bytes]


async def whole_file(part: FilePart) -> bytes:
    """A file in memory: one whose bound (`FormBounds.file`) allows that."""
    return b"".join([chunk async for chunk in part.chunks])


@dataclass(frozen=True, slots=True)
class Form(Generic[Kept]):
    """`fields`: the texts, with lists and objects where names have brackets; `files`: what became of each file."""

    fields: JsonObject
    files: dict[str, Kept]


@dataclass(frozen=True, slots=True)
class _Head:
    """The beginning of a part. `file`: whether it is one."""

    name: str
    filename: str
    media_type: str
    file: bool


class _End:
    """The end of a part."""


_FormEvent: TypeAlias = "_Head | bytes | _End"


async def read_multipart(
    request: Request, bounds: FormBounds, keep: Callable[[FilePart], Awaitable[Kept]]
) -> Form[Kept]:
    """The form in the body of `request`. `keep` is given each file as it comes, and says what became of it.

    InvalidRequest, PayloadTooLarge, UnsupportedMediaType where the body is no such form.
    """
    parser = _Parser(_boundary(request), bounds)
    fields: list[tuple[str, str]] = []
    files: dict[str, Kept] = {}
    async with aclosing(_events(request, parser, bounds)) as events:
        async for event in events:
            if not isinstance(event, _Head):
                continue  # what the one who keeps a file did not want of it
            if not event.file:
                fields.append((event.name, await _text(event, events, bounds)))
                continue
            if event.name in files:
                raise _invalid(event.name, "there may be one file only")
            chunks = _chunks(event, events, bounds)
            files[event.name] = await keep(FilePart(event.name, event.filename, event.media_type, chunks))
    return Form(nested(fields), files)


def _boundary(request: Request) -> bytes:
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    if media_type != b"multipart/form-data":
        raise UnsupportedMediaType("The body must be a form: multipart/form-data.")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 200:
        raise _broken("its Content-Type names no boundary of 1 to 200 bytes")
    return boundary


async def _events(request: Request, parser: _Parser, bounds: FormBounds) -> AsyncGenerator[_FormEvent]:
    async for data in _decoded(request, bounds):
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            # What looks like boundaries again and again is read a byte at a time.
            events = parser.feed(piece) if len(piece) <= _SMALL else await in_lane(lambda: parser.feed(piece))  # noqa: B023
            for event in events:
                yield event
    if not parser.ended:
        raise InvalidRequest("The form ended before its last boundary.", code="incomplete_body")


async def _decoded(request: Request, bounds: FormBounds) -> AsyncIterator[bytes]:
    """The body without its codings, and never more of it than `bounds` allow."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit():
        _meter(bounds)(int(declared))
    encoding = request.headers.get("content-encoding", "")
    count = _meter(bounds)
    decoder = Decoder(encoding, lambda: _meter(bounds)) if encoding else None
    async for data in request.stream():
        count(len(data))
        if decoder is None:
            yield data
            continue
        pieces = decoder.feed(data)
        while (piece := await in_lane(lambda: next(pieces, None))) is not None:  # noqa: B023
            yield piece
    if decoder is not None:
        decoder.end()


def _meter(bounds: FormBounds) -> Callable[[int], None]:
    left = bounds.together

    def count(more: int) -> None:
        nonlocal left
        left -= more
        if left < 0:
            param = next(iter(bounds.files), None)
            raise PayloadTooLarge(f"The form is larger than {bounds.together} bytes{_set_by(bounds)}.", param=param)

    return count


async def _chunks(head: _Head, events: AsyncIterator[_FormEvent], bounds: FormBounds) -> AsyncIterator[bytes]:
    size = 0
    async for event in events:
        if not isinstance(event, bytes):
            return
        size += len(event)
        if size > bounds.file:
            raise PayloadTooLarge(
                f"Invalid '{head.name}': the file is larger than {bounds.file} bytes{_set_by(bounds)}.", param=head.name
            )
        yield event


async def _text(head: _Head, events: AsyncIterator[_FormEvent], bounds: FormBounds) -> str:
    text = bytearray()
    async for event in events:
        if not isinstance(event, bytes):
            break
        text += event
        if len(text) > bounds.field:
            raise PayloadTooLarge(
                f"Invalid '{head.name}': the field is larger than {bounds.field} bytes.", param=head.name
            )
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise _invalid(head.name, "it is no text in UTF-8") from error


# ----------------------------------------------------------------------------------------------------------- parser


@dataclass(slots=True)
class _Part:
    """What is known of a part before its bytes."""

    headers: dict[str, str] = field(default_factory=dict)
    name: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)


class _Parser:
    """Bytes in, events out."""

    def __init__(self, boundary: bytes, bounds: FormBounds) -> None:
        self.ended = False
        self._bounds = bounds
        self._events: deque[_FormEvent] = deque()
        self._part = _Part()
        self._fields = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._part.name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._part.value.extend(data[start:end]),
                "on_header_end": self._header,
                "on_headers_finished": self._headed,
                "on_part_data": lambda data, start, end: self._events.append(bytes(data[start:end])),
                "on_part_end": lambda: self._events.append(_End()),
                "on_end": self._end,
            },
            max_header_count=MAX_HEADERS,
            max_header_size=MAX_HEADER,
        )
        # It logs each fault that it raises, in words of whoever sent it.
        self._parser.logger = _SILENT

    def feed(self, data: bytes) -> Iterator[_FormEvent]:
        """What some more bytes bring. InvalidRequest when they are no form."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _broken(str(error)[:200]) from error
        events, self._events = self._events, deque()
        return iter(events)

    def _begin(self) -> None:
        self._part = _Part()

    def _header(self) -> None:
        part = self._part
        name = part.name.decode("latin-1").lower()
        if name in part.headers:
            raise _broken(f"a part has two headers '{name}'")
        part.headers[name] = part.value.decode("latin-1").strip()
        part.name.clear()
        part.value.clear()

    def _headed(self) -> None:
        head = _head(self._part.headers, self._bounds)
        self._fields += not head.file
        if self._fields > self._bounds.fields:
            raise _broken(f"it has more than {self._bounds.fields} fields")
        self._events.append(head)

    def _end(self) -> None:
        self.ended = True


def _head(headers: dict[str, str], bounds: FormBounds) -> _Head:
    kind, options = parse_options_header(headers.get("content-disposition", ""))
    if kind != b"form-data" or not options.get(b"name"):
        raise _broken("a part has no 'Content-Disposition: form-data' with a name")
    name = _named(options[b"name"], "a field", MAX_NAME)
    encoding = headers.get("content-transfer-encoding", "").lower()
    if encoding not in _ENCODINGS:
        raise _invalid(name, f"a part's Content-Transfer-Encoding '{encoding[:50]}' is not read")
    media_type, parameters = parse_options_header(headers.get("content-type", ""))
    if name in bounds.files:
        extended = _EXTENDED.search(headers["content-disposition"])
        raw = unquote_to_bytes(extended[1]) if extended else options.get(b"filename", b"")
        filename = _named(raw, "a file", MAX_FILENAME)
        return _Head(name, filename, media_type.decode("latin-1"), file=True)
    if b"filename" in options:
        raise _invalid(name, "it is a file; a text is expected")
    charset = parameters.get(b"charset", b"").decode("latin-1").lower()
    if charset not in _CHARSETS:
        raise _invalid(name, f"its charset '{charset[:50]}' is not read; texts are UTF-8")
    return _Head(name, "", media_type.decode("latin-1"), file=False)


def _named(raw: bytes, what: str, most: int) -> str:
    """A name of a header: UTF-8, with what a quoted text cannot hold as browsers write it."""
    if len(raw) > most:
        raise _broken(f"the name of {what} is longer than {most} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _broken(f"the name of {what} is no UTF-8") from error
    if not text.isprintable():
        raise _broken(f"the name of {what} holds control characters")
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


# ------------------------------------------------------------------------------------------------------------ names


def nested(fields: Iterable[tuple[str, str]]) -> JsonObject:
    """Fields as an object: `a[b]` is a member of an object `a`, `a[]` an item of a list. InvalidRequest names the field
    that is there twice, or that is two kinds of thing."""
    whole: JsonObject = {}
    for name, text in fields:
        match = _NAME.fullmatch(name)
        first, inner, item = match.groups() if match else (name, "", None)
        keys = [first, *inner[1:-1].split("][")] if inner else [first]
        if len(keys) > MAX_DEPTH:
            raise _invalid(name, f"its name has more than {MAX_DEPTH} parts")
        here = whole
        for key in keys[:-1]:
            here = _inside(here, key, {}, name)
        if item:
            _inside(here, keys[-1], [], name).append(text)
        elif keys[-1] in here:
            raise _invalid(name, "it is there more than once")
        else:
            here[keys[-1]] = text
    return whole


_Container = TypeVar("_Container", JsonObject, list[JsonValue])


def _inside(whole: JsonObject, key: str, empty: _Container, name: str) -> _Container:
    """The list or the object at a key; begun if there is none."""
    found = whole.setdefault(key, empty)
    if not isinstance(found, type(empty)):
        raise _invalid(name, "it is two kinds of thing in one form")
    return found


# ----------------------------------------------------------------------------------------------------------- faults


def _broken(cause: str) -> InvalidRequest:
    return InvalidRequest(f"We could not read the form of your request: {cause}.", code="invalid_form")


def _invalid(name: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid '{name}': {what}.", param=name)


def _set_by(bounds: FormBounds) -> str:
    return f" ({bounds.setting})" if bounds.setting else ""
