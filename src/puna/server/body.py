"""JSON in, JSON out. Whatever a client sends as a body ends as a value or as a 400 that says where it is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from json.encoder import encode_basestring
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from puna.errors import InvalidRequest
from puna.lane import in_lane
from puna.server.allowance import Allowance
from puna.server.encoding import decoded
from puna.server.pieces import PIECE, parse_in_pieces
from puna.strictjson import strict_json
from puna.types import JsonObject, JsonValue

LARGE = PIECE
"""Bytes over which a body is read beside the loop."""

_STRETCH = 10_000
"""Items that are written in one go: some milliseconds."""

_CHARACTERS = 100
"""Of a text, that take as long as an item."""

Result = TypeVar("Result")

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

dump_text = _ENCODER.encode
"""A JSON value as text. Characters are kept, not escaped. ValueError for infinity and NaN."""

dump_string = encode_basestring
"""The same of a string, sooner."""


def dump(value: JsonValue) -> bytes:
    """A JSON value as UTF-8; half a surrogate pair, which UTF-8 cannot hold, becomes '?'."""
    return _utf8(_written(value))


_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


def one_line(text: str) -> str:
    """A JSON text without the characters at which some readers end a line: those that httpx has, under Ollama's library
    and others. Go escapes them too.
    """
    return text if text.isascii() else text.translate(_LINE_ENDS)


def dump_line(value: JsonValue) -> bytes:
    """A JSON value as a line of a stream."""
    return _utf8(one_line(_written(value))) + b"\n"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _written(value: JsonValue) -> str:
    """The same as text. What is much is written a stretch at a time: nothing else runs while the encoder does."""
    match value:
        case dict() if _size(value) > _STRETCH:
            return "{" + ",".join(f"{dump_string(name)}:{_written(item)}" for name, item in value.items()) + "}"
        case list() if _size(value) > _STRETCH:
            return "[" + ",".join(_stretches(value)) + "]"
        case _:
            return dump_text(value)


def _stretches(items: list[JsonValue]) -> Iterator[str]:
    """Neighbours of a list, as many at a time as are not much together."""
    start = size = 0
    for at, item in enumerate(items):
        more = _size(item)
        size += more
        if size > _STRETCH:
            if start < at:
                yield dump_text(items[start:at])[1:-1]
            start, size = at, more
        if more > _STRETCH:
            yield _written(item)
            start, size = at + 1, 0
    if start < len(items):
        yield dump_text(items[start:])[1:-1]


def _size(value: JsonValue) -> int:
    """How many items are to be written, a long text counting as many. No more is looked at than one stretch has."""
    size, waiting = 0, [value]
    while waiting and size <= _STRETCH:
        item = waiting.pop()
        size += 1
        if isinstance(item, str):
            size += len(item) // _CHARACTERS
        elif isinstance(item, dict | list):
            size += len(item)
            if size <= _STRETCH and not _is_vector(item):
                waiting += item if isinstance(item, list) else item.values()
    return size


def _is_vector(value: list[JsonValue] | dict[str, JsonValue]) -> bool:
    """Whether all of it are decimal numbers: none needs to be looked at by itself."""
    return isinstance(value, list) and set(map(type, value)) == {float}


async def reply_beside(value: Callable[[], JsonValue], items: int) -> Response:
    """An answer of so many items: made in a thread if they are many, so that others are served meanwhile."""
    return JsonReply(await in_lane(value) if items > _STRETCH else value())


class JsonReply(Response):
    """A JSON answer. One of much is written in a thread, when it is sent: until then it has no `body`."""

    media_type = "application/json"

    def __init__(self, value: JsonValue, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._much = value if _size(value) > _STRETCH else None
        body = None if self._much is not None else _utf8(dump_text(value))
        super().__init__(body, status_code=status, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._much is not None:
            value, self._much = self._much, None
            self.body = await in_lane(lambda: dump(value))
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def parse_json(body: bytes) -> JsonValue:
    """The value of a JSON text. Refused: bad syntax, bad UTF-8, lone surrogates, NaN, numbers that a float cannot hold,
    nesting over some 200 levels. A byte order mark is skipped.

    A text over `LARGE` bytes must be an object or a list, is held to the limits of `pieces`, and takes a while.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        if len(body) > LARGE:
            return parse_in_pieces(body, strict_json)
        if not body.strip():
            raise ValueError("the body is empty")
        return strict_json(body)
    except ValueError as error:
        raise _unreadable(str(error)) from error


async def body_of(request: Request) -> bytes:
    """All bytes of the body, as they came. Those of a large one are put together beside the loop."""
    whole: bytes | None = getattr(request.state, "body", None)
    if whole is None:
        pieces = [piece async for piece in request.stream()]
        large = sum(map(len, pieces)) > LARGE
        whole = request.state.body = await in_lane(lambda: _joined(pieces)) if large else _joined(pieces)
    return whole


def _joined(pieces: list[bytes]) -> bytes:
    """Takes the pieces: whoever joins many lets go of them too, which takes a while."""
    whole = b"".join(pieces)
    pieces.clear()
    return whole


async def read_object(request: Request) -> JsonObject:
    """The JSON object in the body of `request`, whatever its content type says (curl's default is a form)."""
    body, encoding = await body_of(request), request.headers.get("content-encoding", "")
    allowance: Allowance = request.state.allowance
    if encoding:
        coded = body
        body = await in_lane(lambda: decoded(coded, encoding, allowance.meter))
    request.state.body_size = len(body)
    if len(body) > LARGE:
        allowance.grow_large()
    value = await in_lane(lambda: parse_json(body)) if len(body) > LARGE else parse_json(body)
    if not isinstance(value, dict):
        raise _unreadable(f"expected an object, but got {kind(value)}")
    return value


def json_object(text: str, param: str, expected: str) -> JsonObject:
    """The object that a text inside a request holds. `expected`: what it is, for the error, which names `param`."""
    try:
        value: JsonValue = parse_json(text.encode("utf-8", "replace"))
    except InvalidRequest as error:
        raise InvalidRequest(f"Invalid '{param}': expected {expected}.", param=param) from error
    if not isinstance(value, dict):
        raise InvalidRequest(f"Invalid '{param}': expected {expected}, but got {kind(value)}.", param=param)
    return value


async def beside(request: Request, work: Callable[[], Result], *, slow: bool = False) -> Result:
    """The result of `work` on the body of `request`: in a thread, while others are served, if it is large or `slow`.

    What comes of a large one is there until the request has ended (see `Allowance.keep`).
    """
    size: int = request.state.body_size
    if size <= LARGE:
        return await in_lane(work) if slow else work()
    result = await in_lane(work)
    keep(request, result)
    return result


def keep(request: Request, value: object) -> None:
    """Something that came of the body, to be let go of beside the loop when the request is answered."""
    allowance: Allowance = request.state.allowance
    allowance.keep(value)


def kind(value: object) -> str:
    """What a JSON value is, with its article, in the words of OpenAI's errors."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _unreadable(cause: str) -> InvalidRequest:
    error = InvalidRequest(f"We could not parse the JSON body of your request: {cause}.")
    error.code = None
    return error
