"""What the server and the cpu engine's child say to each other, and how it lies on the wire. No heavy import.

A frame is a length (four bytes, big end first) and that many bytes. The server sends a Load, which the child answers
with Hello or Failed; from then on one frame is one AskMessage. All of these are in JSON. The child sends lists of
Replies: all that one step of the engine brought, for all requests together, is one frame and one write.
Each reply is a record; that of a plain token, of which there are most, holds its bytes, the others JSON, where bytes
travel as the characters of the same numbers.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Literal, TypeAlias, cast

import puna.errors
from puna.engine.runner import End, Prefilled, Sampling, Token, Weighed
from puna.errors import ContextLengthExceeded, EngineError, Overloaded, PunaError
from puna.types import Candidate

HEADER = struct.Struct(">I")

SOCKET = "runner.sock"
"""Name in the child's directory: where the server listens."""


# ------------------------------------------------------------------------------------------------------- at the start


@dataclass(frozen=True, slots=True)
class Load:
    """The server's first word: what the child is to load, and how.

    `shards`: the files after the first, where the weights are in several. `memory`: bytes that it may take in all, 0:
    what the system has free. `cache_type`: what the cache is kept as. `speculation`: whether next tokens are guessed.
    `cache_memory`: bytes that the cache may take, 0: as many as it may have. `cache_disk`: bytes that the caches of all
    models may take in `cache_dir`, 0: none. `content`: the digest of the model.
    """

    weights: str
    num_ctx: int
    slots: int
    threads: int | None
    step_tokens: int | None
    memory: int
    cache_type: str = "f16"
    speculation: bool = True
    shards: Sequence[str] = ()
    cache_memory: int = 0
    cache_disk: int = 0
    cache_dir: str = ""
    content: str = ""

    @property
    def persists(self) -> bool:
        """Something of its cache is to outlive it."""
        return bool(self.cache_disk and self.cache_dir and self.content)


@dataclass(frozen=True, slots=True)
class Hello:
    """The child's first word: it is ready. `cache_tokens`: how many its cache holds, for all requests together.

    `version`: of what computes. `markup`: control tokens' ids by their texts. `trouble`: why its cache is not on the
    disk, though it was to be.
    """

    version: str
    vocabulary: int
    bos: int | None
    eos: tuple[int, ...]
    add_bos: bool
    embedding_length: int
    cache_tokens: int
    memory: int
    markup: Mapping[str, int]
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The child's first and last word instead: why it could not load."""

    error: PunaError


# --------------------------------------------------------------------------------------------------- server to child


@dataclass(frozen=True, slots=True)
class AskGenerate:
    number: int
    tokens: tuple[int, ...]
    sampling: Sampling
    gbnf: str | None
    prediction: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class AskScore:
    number: int
    tokens: tuple[int, ...]
    top: int


@dataclass(frozen=True, slots=True)
class AskWeigh:
    number: int
    tokens: tuple[int, ...]
    following: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AskTokenize:
    number: int
    text: str
    special: bool
    bos: bool


@dataclass(frozen=True, slots=True)
class AskDetokenize:
    number: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AskCount:
    """Answered with four numbers: requests that run, and that wait; blocks of the cache free to promise, and all. Then
    the number of each of these requests."""

    number: int


@dataclass(frozen=True, slots=True)
class AskCancel:
    """Nobody waits for the replies to that number any more. It is not answered."""

    number: int


@dataclass(frozen=True, slots=True)
class AskSettle:
    """Write to the disk what is to be kept; no more work is to come. Answered with an empty list when that is done."""

    number: int


AskMessage: TypeAlias = (
    AskGenerate | AskScore | AskWeigh | AskTokenize | AskDetokenize | AskCount | AskCancel | AskSettle
)

_ASKS: dict[str, type[AskMessage]] = {
    "generate": AskGenerate,
    "score": AskScore,
    "weigh": AskWeigh,
    "tokenize": AskTokenize,
    "detokenize": AskDetokenize,
    "count": AskCount,
    "cancel": AskCancel,
    "settle": AskSettle,
}
_NAMES = {kind: name for name, kind in _ASKS.items()}


def ask_frame(ask: AskMessage) -> bytes:
    body = _fields(ask)
    if isinstance(ask, AskGenerate):
        body["sampling"] = _fields(ask.sampling)
    return _frame([_NAMES[type(ask)], body])


def _fields(value: AskMessage | Sampling) -> dict[str, object]:
    """As they are: `asdict` copies what is inside too, a fifth of a second for a bias of each token."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def read_ask(payload: bytes) -> AskMessage:
    name, body = json.loads(payload)
    kind = _ASKS[name]
    if kind is AskGenerate:
        said = body["sampling"]
        said["logit_bias"] = tuple((token, bias) for token, bias in said["logit_bias"])
        body["sampling"] = Sampling(**said)
    for name in ("tokens", "prediction", "following"):
        if name in body:
            body[name] = tuple(body[name])
    return kind(**body)


# --------------------------------------------------------------------------------------------------- child to server

Scores: TypeAlias = "list[tuple[float, tuple[Candidate, ...]]]"
ReplyBody: TypeAlias = "Prefilled | Token | End | PunaError | Scores | Weighed | list[int] | bytes"
"""Prefilled, Tokens, then an End, to AskGenerate; one of the others, or an error, to the rest."""

Reply: TypeAlias = tuple[int, ReplyBody]


def load_frame(load: Load) -> bytes:
    return _frame(asdict(load))


def read_load(payload: bytes) -> Load:
    said = json.loads(payload)
    return Load(**{**said, "shards": tuple(said["shards"])})


def hello_frame(word: Hello | Failed) -> bytes:
    if isinstance(word, Failed):
        return _frame({"failed": _write_error(word.error)})
    return _frame({"hello": asdict(word)})


def read_hello(payload: bytes) -> Hello | Failed:
    word = json.loads(payload)
    if "failed" in word:
        return Failed(_read_error(word["failed"]))
    said = word["hello"]
    return Hello(**{**said, "eos": tuple(said["eos"])})


_RECORD = struct.Struct("<?QII")
"""Before each reply: whether it is a token and no more, the ask's number, the token's id (else 0), and how many bytes
follow: the token's own, else JSON."""


def replies_frame(replies: Iterable[Reply]) -> bytes:
    parts = [b""]
    for number, answer in replies:
        if isinstance(answer, Token) and answer.logprob is None:
            parts += _RECORD.pack(True, number, answer.id, len(answer.data)), answer.data
        else:
            text = json.dumps(_write_reply(answer), separators=(",", ":")).encode()
            parts += _RECORD.pack(False, number, 0, len(text)), text
    parts[0] = HEADER.pack(sum(map(len, parts)))
    return b"".join(parts)


def read_replies(payload: bytes) -> list[Reply]:
    replies: list[Reply] = []
    begin, size, end = 0, _RECORD.size, len(payload)
    while begin < end:
        plain, number, token, length = _RECORD.unpack_from(payload, begin)
        begin += size
        data = payload[begin : begin + length]
        begin += length
        replies.append((number, _token(token, data) if plain else _read_reply(json.loads(data))))
    return replies


@lru_cache(maxsize=1 << 15)
def _token(token: int, data: bytes) -> Token:
    """The same value for the same token: that it is made once saves most of what it costs."""
    return Token(token, data)


_Kind: TypeAlias = Literal["p", "t", "e", "x", "s", "w", "i", "b"]


def _write_reply(answer: ReplyBody) -> list[object]:
    match answer:
        case Token(token, data, logprob, top):
            return ["t", token, data.decode("latin-1"), logprob, _write_candidates(top)]
        case Prefilled():
            return ["p", asdict(answer)]
        case End():
            return ["e", asdict(answer)]
        case PunaError():
            return ["x", _write_error(answer)]
        case Weighed(logprobs, cached):
            return ["w", logprobs, cached]
        case bytes():
            return ["b", answer.decode("latin-1")]
        case [int(), *_] | []:
            return ["i", answer]
        case _:
            scores = cast("Scores", answer)
            return ["s", [[logprob, _write_candidates(top)] for logprob, top in scores]]


def _read_reply(item: list[Any]) -> ReplyBody:
    kind: _Kind = item[0]
    match kind:
        case "t":
            return Token(item[1], item[2].encode("latin-1"), item[3], _read_candidates(item[4]))
        case "p":
            return Prefilled(**item[1])
        case "e":
            return End(**item[1])
        case "x":
            return _read_error(item[1])
        case "b":
            data: bytes = item[1].encode("latin-1")
            return data
        case "s":
            return [(logprob, _read_candidates(top)) for logprob, top in item[1]]
        case "w":
            return Weighed(tuple(item[1]), item[2])
        case "i":
            ids: list[int] = item[1]
            return ids


def _write_candidates(candidates: Iterable[Candidate]) -> list[list[object]]:
    return [[candidate.token, candidate.data.decode("latin-1"), candidate.logprob] for candidate in candidates]


def _read_candidates(items: list[tuple[int, str, float]]) -> tuple[Candidate, ...]:
    return tuple(Candidate(token, data.encode("latin-1"), logprob) for token, data, logprob in items)


def _write_error(error: PunaError) -> dict[str, object]:
    extra = {name: getattr(error, name) for name in ("tokens", "limit", "retry_after") if hasattr(error, name)}
    return {"class": type(error).__name__, "message": error.message, "param": error.param, "code": error.code, **extra}


def _read_error(item: dict[str, Any]) -> PunaError:
    kind = getattr(puna.errors, item["class"], EngineError)
    if kind is ContextLengthExceeded:
        return ContextLengthExceeded(item["tokens"], item["limit"], param=item["param"], what=item["param"])
    if kind is Overloaded:
        return Overloaded(item["message"], retry_after=item["retry_after"])
    error: PunaError = kind(item["message"], param=item["param"], code=item["code"])
    return error


# -------------------------------------------------------------------------------------------------------- on the wire


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame's payload; empty when there is none any more."""
    try:
        (length,) = HEADER.unpack(await reader.readexactly(HEADER.size))
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def receive_frame(connection: socket.socket) -> bytes:
    """The next frame's payload, of a connection that blocks; empty when there is none any more."""
    try:
        header = connection.recv(HEADER.size, socket.MSG_WAITALL)
        if len(header) < HEADER.size:
            return b""
        (length,) = HEADER.unpack(header)
        return connection.recv(length, socket.MSG_WAITALL)
    except ConnectionError:
        return b""


class Frames:
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads of the frames that are whole by now."""
        if self._rest:
            data = self._rest + data
        payloads, begin, end = [], 0, len(data)
        while end - begin >= HEADER.size:
            (length,) = HEADER.unpack_from(data, begin)
            if end - begin < HEADER.size + length:
                break
            begin += HEADER.size + length
            payloads.append(data[begin - length : begin])
        self._rest = data[begin:]
        return payloads


def _frame(body: object) -> bytes:
    payload = json.dumps(body, separators=(",", ":")).encode()
    return HEADER.pack(len(payload)) + payload
