"""The command's view of a server: each native route is one typed method. Knows HTTP, and no room of the server.

Before its first request a Client makes sure that it speaks to a Puna: no answer of anything else is used.

Answers are converted here: outside, a `ModelSummary` or a `Chunk`, never a dict. Whatever fails is one of three errors:
`ServerUnreachable` (no server, or the connection broke), `NotPuna` (something else answers there) and `ServerRefused`
(it answered with an error).
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, TypeVar
from urllib.parse import quote

from puna.errors import Code, PunaError
from puna.response import Response
from puna.roundtrip import Body, Broken, NotConnected, TooSlow
from puna.settings import DEFAULT_PORT, IDENTITY, Address

if TYPE_CHECKING:  # it takes as long to import as all that a short command needs besides
    from puna.direct import DirectTransport
    from puna.transport import Transport
    from puna.types import JsonObject, JsonValue, Progress

_IDENTIFY_SECONDS = 2.0
"""How long a server on this machine may take to say what it is: Puna answers that at once, whatever it works on."""
_IDENTIFY_SECONDS_FAR = 15.0
_LINE_LIMIT = 64 * 1024 * 1024
_IDENTITY_BYTES = 64 * 1024
_UPLOAD_CHUNK = 1024 * 1024

_T = TypeVar("_T")


class ServerUnreachable(PunaError):
    """Nothing answers at `url`, or the connection broke."""

    default_code: ClassVar[Code | None] = "server_unreachable"

    def __init__(self, url: str, reason: str = "", *, local: bool = True) -> None:
        """`local`: it would be on this machine, where it can be started."""
        detail = f" ({reason})" if reason else ""
        cure = "run 'puna serve' to start it" if local else "is the address right, and does it run there?"
        super().__init__(f"could not connect to a Puna server at {url}{detail}, {cure}")
        self.url = url


class ConnectionLost(ServerUnreachable):
    """The connection broke in the middle of an answer."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url)
        self.message = f"the connection to {url} was lost in the middle of the answer ({reason})"


class NotPuna(PunaError):
    """Another program has the address: `what` answers at `url`, and it is no Puna."""

    default_code: ClassVar[Code | None] = "not_puna"

    def __init__(self, address: Address, what: str) -> None:
        other = address.port + 1 if address.port < 65535 else DEFAULT_PORT
        super().__init__(
            f"at {address.url} there is {what}, not Puna: stop it, or use another address for Puna, such as "
            f"'--port {other}' with every command or PUNA_HOST=127.0.0.1:{other} in the environment"
        )
        self.url = address.url
        self.what = what


class _Vanished(NotPuna):
    """It closed the connection without a word."""


class ServerRefused(PunaError):
    """The server said no. `http_status` is 200 when it said so in the middle of a stream."""

    def __init__(self, http_status: int, message: str) -> None:
        super().__init__(message)
        self.http_status = http_status


class KeyRefused(ServerRefused):
    """The server has keys, and the command sent none, or another."""

    def __init__(self, url: str, *, sent: bool) -> None:
        problem = "does not accept this key" if sent else "asks for a key"
        super().__init__(401, f"the Puna server at {url} {problem}: set PUNA_API_KEYS to one of its keys")


@dataclass(frozen=True, slots=True)
class Details:
    """What kind of model it is. Texts as the server words them ('134.52M', 'Q4_1')."""

    family: str = ""
    parameter_size: str = ""
    quantization_level: str = ""


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file that `puna verify` found. `words`: what is wrong; `reason`: why it could not be mended, if that was tried.

    `digest` is '' of a manifest.
    """

    model: str
    words: str
    digest: str
    mended: bool
    reason: str


@dataclass(frozen=True, slots=True)
class VerifiedStore:
    """Counts: models that were looked at, files found damaged, and those of them that were mended."""

    models: int
    damaged: int
    mended: int


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A line of `puna list`. `digest`: 64 hex characters; `size`: bytes."""

    name: str
    digest: str
    size: int
    modified: datetime
    details: Details
    remote: bool = False


@dataclass(frozen=True, slots=True)
class RunningModel:
    """A line of `puna ps`. `engine` and `engine_reason` are empty when the server does not tell."""

    name: str
    digest: str
    size: int
    size_vram: int
    num_ctx: int
    expires: datetime
    engine: str = ""
    engine_reason: str = ""


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """One that waits for a model. `state`: `queued` or `loading`."""

    model: str
    state: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What `/api/show` tells. `info` holds the file's metadata, with None for arrays that were left out."""

    license: str
    modelfile: str
    parameters: str
    template: str
    system: str
    details: Details
    capabilities: tuple[str, ...]
    info: JsonObject
    projector: JsonObject
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]
    messages: tuple[tuple[str, str], ...]
    tool_syntax: str = ""
    source: str = ""
    engine: str = ""
    engine_reason: str = ""
    rendered_by: str = ""
    unused: str = ""


@dataclass(frozen=True, slots=True)
class Renewal:
    """A line of `puna outdated`. `state`: current, outdated, own, unknown or gone; `reason`: what that comes of.

    `digest`: 64 hex characters of the manifest that is here; `offered`: what the source has, in its own words.
    """

    name: str
    state: str
    digest: str
    source: str
    offered: str
    reason: str


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a model would take, in bytes. `largest_num_ctx`: for each of `least_slots` requests at once; None
    where no context would fit.
    """

    model: str
    engine: str
    num_ctx: int
    slots: int
    weights: int
    cache: int
    compute: int
    total: int
    available: int
    fits: bool
    largest_num_ctx: int | None
    least_slots: int


@dataclass(frozen=True, slots=True)
class Listing:
    """A line of `puna search`. `size`: bytes, None where the source does not tell."""

    name: str
    source: str
    description: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Offered:
    """What a source has under a name. `manifest`: 'sha256:…', '' if it does not tell; `size`: bytes, None likewise."""

    source: str
    manifest: str
    size: int | None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`unlisted`: sources that cannot be searched, and why."""

    models: tuple[Listing, ...]
    unlisted: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class LineAnswer:
    """What a route answered, an error too. `retry_after`: seconds, where asking again is worth while.

    `reported`: the headers that say what of the request had no effect.
    """

    status: int
    request_id: str
    reported: JsonObject
    retry_after: float | None
    body: JsonValue


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vector of one text. `truncated`: the text was cut to what fits."""

    vector: tuple[float, ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts in tokens, durations in nanoseconds."""

    total_ns: int
    load_ns: int
    prompt_tokens: int
    prompt_ns: int
    tokens: int
    decode_ns: int


@dataclass(frozen=True, slots=True)
class MadeCall:
    """A tool call that the model made. `arguments`: JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a streamed answer; the last has `stats`."""

    text: str
    thinking: str
    calls: tuple[MadeCall, ...] = ()
    stats: Stats | None = None


@dataclass(frozen=True, slots=True)
class AnswerStream:
    """A streamed answer. `notices`: what the server reports about the request before it answers."""

    chunks: AsyncIterator[Chunk]
    notices: tuple[str, ...]


class Client:
    """Use in `async with`. Every method may be called many times and at once; a request has a connection of its own.

    `on_identified` is told the server's version, once. `direct`: no event loop is there (`puna.direct.without_loop`).
    """

    def __init__(
        self,
        address: Address,
        *,
        api_key: str | None = None,
        on_identified: Callable[[str], None] = lambda version: None,
        direct: bool = False,
    ) -> None:
        self.url = address.url
        self._address = address
        self._on_identified = on_identified
        self._identified = ""
        self.local = address.host in {"", "localhost", "0.0.0.0", "::"} or _is_loopback(address.host)
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        # A server on this machine is never behind a proxy, whatever the environment says.
        self._transport = _transport(address, proxied=not self.local, direct=direct)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    # ------------------------------------------------------------------------------------------------- the server

    async def identify(self, seconds: float | None = None) -> str:
        """The version of the Puna that answers. ServerUnreachable when nothing does, NotPuna when something else does.

        Takes no key. `seconds`: for which it may keep silent; a few if not told.
        """
        if not self._identified:
            try:
                self._identified = await self._ask_identity(seconds)
            except _Vanished:
                # It may have been a server in the moment of its end: look once more.
                self._identified = await self._ask_identity(seconds)
            self._on_identified(self._identified)
        return self._identified

    async def _ask_identity(self, seconds: float | None) -> str:
        seconds = seconds or (_IDENTIFY_SECONDS if self.local else _IDENTIFY_SECONDS_FAR)
        until = time.monotonic() + seconds
        try:
            async with self._transport.request("HEAD", "/", {}, seconds=seconds) as response:
                return response.headers.get(IDENTITY) or await self._told_version(response, until)
        except NotConnected as error:
            if isinstance(error.__cause__, TimeoutError) and self.local:
                raise self._other(f"something that does not answer within {seconds:g} s") from error
            raise ServerUnreachable(self.url, _reason(error), local=self.local) from error
        except TooSlow as error:
            raise self._other(f"something that does not answer within {seconds:g} s") from error
        except Broken as error:
            if isinstance(error.__cause__, OSError):
                raise _Vanished(self._address, self._holder("something that closes its connections")) from error
            raise self._other("something that does not speak HTTP") from error

    async def _told_version(self, response: Response, until: float) -> str:
        """What `/api/version` tells, where a proxy has kept the header from us. NotPuna names what else it is."""
        left = max(0.1, until - time.monotonic())
        try:
            async with self._transport.request("GET", "/api/version", {}, seconds=left) as versions:
                answer = json.loads(await versions.read(_IDENTITY_BYTES, left))
        except (NotConnected, Broken, TooSlow, ValueError):
            answer = None
        if isinstance(answer, dict):
            if version := _text(answer, "puna"):
                return version
            if version := _text(answer, "version"):
                raise self._other(f"Ollama {_plain(version)} (or a program that answers like it)")
        name = _plain(response.headers.get("server", ""))
        what = f"another HTTP server ({name})" if name else "another HTTP server"
        if response.status in {301, 302, 303, 307, 308}:
            what += f" that sends on to {_plain(response.headers.get('location', ''))}"
        elif response.status >= 400:
            what += f" that answers {response.status}"
        raise self._other(what)

    def _other(self, what: str) -> NotPuna:
        return NotPuna(self._address, self._holder(what))

    def _holder(self, what: str) -> str:
        if self.local:
            from puna.occupant import process_on

            if holder := process_on(self._address.port):
                return f"{what} ({holder})"
        return what

    # ----------------------------------------------------------------------------------------------------- models

    async def models(self) -> tuple[ModelSummary, ...]:
        answer = await self._json("GET", "/api/tags")
        return tuple(_summary(item) for item in _objects(answer, "models"))

    async def running(self) -> tuple[RunningModel, ...]:
        return (await self.at_work())[0]

    async def at_work(self) -> tuple[tuple[RunningModel, ...], tuple[WaitingRequest, ...]]:
        """The models that are loaded, and the requests that wait for one."""
        answer = await self._json("GET", "/api/ps")
        waiting = _objects(answer, "queue") if "queue" in answer else ()
        return tuple(_running(item) for item in _objects(answer, "models")), tuple(_waiting(item) for item in waiting)

    async def show(self, model: str, *, verbose: bool = False) -> ModelCard:
        return _card(await self._json("POST", "/api/show", {"model": model, "verbose": verbose}))

    async def copy(self, source: str, destination: str) -> None:
        async with self._request("POST", "/api/copy", {"source": source, "destination": destination}):
            pass

    async def delete(self, model: str) -> None:
        async with self._request("DELETE", "/api/delete", {"model": model}):
            pass

    async def load(self, model: str, keep_alive: str | None = None, options: JsonObject | None = None) -> None:
        """Returns when the model is in memory."""
        body: JsonObject = {"model": model, "stream": False}
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        if options:
            body["options"] = options
        await self._json("POST", "/api/generate", body)

    async def unload(self, model: str) -> None:
        await self._json("POST", "/api/generate", {"model": model, "stream": False, "keep_alive": 0})

    # -------------------------------------------------------------------------------------------------- long jobs

    def pull(self, model: str, *, insecure: bool = False) -> AsyncIterator[Progress]:
        return self._progress("/api/pull", {"model": model, "insecure": insecure})

    def pull_files(self, model: str, files: Mapping[str, str]) -> AsyncIterator[Progress]:
        """Files of this machine, by absolute path with their sha256, become the model. For a server that is here."""
        return self._progress("/api/pull", {"model": model, "files": dict(files)})

    def push(self, model: str, *, insecure: bool = False) -> AsyncIterator[Progress]:
        return self._progress("/api/push", {"model": model, "insecure": insecure})

    async def outdated(self, models: Sequence[str], *, insecure: bool = False) -> tuple[Renewal, ...]:
        """Of these models, or of all when none is named."""
        answer = await self._json("POST", "/api/outdated", {"models": list(models), "insecure": insecure})
        return tuple(
            Renewal(**{key: _text(item, key) for key in ("name", "state", "digest", "source", "offered", "reason")})
            for item in _objects(answer, "models")
        )

    async def offer(self, model: str, *, insecure: bool = False) -> Offered:
        """What a pull would bring now. Nothing is fetched."""
        answer = await self._json("POST", "/api/offer", {"model": model, "insecure": insecure})
        return Offered(_text(answer, "source"), _text(answer, "manifest"), _integer(answer, "size"))

    async def estimate(self, model: str, num_ctx: int | None) -> MemoryNeed:
        """Loads nothing. `num_ctx` None: as a request that asks for none."""
        options: JsonObject = {} if num_ctx is None else {"num_ctx": num_ctx}
        answer = await self._json("POST", "/api/estimate", {"model": model, "options": options})
        numbers = {
            key: _integer(answer, key) or 0
            for key in ("num_ctx", "slots", "weights", "cache", "compute", "total", "available", "least_slots")
        }
        return MemoryNeed(
            model=_text(answer, "model"),
            engine=_text(answer, "engine"),
            fits=answer.get("fits") is True,
            largest_num_ctx=_integer(answer, "largest_num_ctx"),
            **numbers,
        )

    async def search(self, word: str, *, insecure: bool) -> SearchResult:
        answer = await self._json("POST", "/api/search", {"word": word, "insecure": insecure})
        return SearchResult(
            tuple(
                Listing(_text(item, "name"), _text(item, "source"), _text(item, "description"), _integer(item, "size"))
                for item in _objects(answer, "models")
            ),
            tuple((_text(item, "source"), _text(item, "reason")) for item in _objects(answer, "unlisted")),
        )

    async def verify(
        self, model: str, *, repair: bool, insecure: bool = False
    ) -> AsyncIterator[Progress | DamagedFile | VerifiedStore]:
        """`model`: '' for all. Last comes the VerifiedStore."""
        from puna.types import Progress

        body: JsonObject = {"model": model, "repair": repair, "insecure": insecure, "stream": True}
        async with self._request("POST", "/api/verify", body) as response:
            async for item in self._lines(response):
                status, digest = _text(item, "status"), _text(item, "digest") or None
                if status == "success":
                    counts = (_integer(item, key) or 0 for key in ("models", "damaged", "repaired"))
                    yield VerifiedStore(*counts)
                    return
                if "fault" in item:
                    words, reason = _text(item, "message"), _text(item, "reason")
                    yield DamagedFile(_text(item, "model"), words, digest or "", status == "repaired", reason)
                else:
                    yield Progress(status, digest, _integer(item, "total"), _integer(item, "completed"))
        raise ConnectionLost(self.url, "it ended without success")

    def create(self, request: JsonObject) -> AsyncIterator[Progress]:
        """`request` is the body of `/api/create`."""
        return self._progress("/api/create", request)

    async def has_blob(self, digest: str) -> bool:
        """`digest`: 'sha256:…'."""
        try:
            async with self._request("HEAD", f"/api/blobs/{digest}"):
                return True
        except ServerRefused as error:
            if error.http_status == 404:
                return False
            raise

    async def offer_file(self, digest: str, path: Path) -> bool:
        """Let a server on this machine take the file by its absolute path, without a second copy. False: upload it.

        The digest proves that the caller can read the file; a server that cannot, or will not, refuses with a 4xx.
        """
        headers = {"x-puna-local-file": quote(str(path))}
        try:
            async with self._request("POST", f"/api/blobs/{digest}", data=Body.of(b""), headers=headers):
                return True
        except ServerRefused as error:
            if 400 <= error.http_status < 500:
                return False
            raise

    async def upload(self, digest: str, path: Path, sent: Callable[[int], None]) -> None:
        """Send the file's bytes; `sent` is told how many have gone so far."""
        async with self._request("POST", f"/api/blobs/{digest}", data=_file_body(path, sent)):
            pass

    # -------------------------------------------------------------------------------------------------- inference

    @asynccontextmanager
    async def generate(self, request: JsonObject) -> AsyncIterator[AnswerStream]:
        """`request` is the body of `/api/generate`. Leaving the block stops the work on the server."""
        async with self._request("POST", "/api/generate", {**request, "stream": True}) as response:
            yield AnswerStream(self._chunks(response, _generate_chunk), _notices(response))

    @asynccontextmanager
    async def chat(self, request: JsonObject) -> AsyncIterator[AnswerStream]:
        """`request` is the body of `/api/chat`. Leaving the block stops the work on the server."""
        async with self._request("POST", "/api/chat", {**request, "stream": True}) as response:
            yield AnswerStream(self._chunks(response, _chat_chunk), _notices(response))

    async def embed(self, request: JsonObject) -> Embedding:
        """`request` is the body of `/api/embed` with one input."""
        answer = await self._json("POST", "/api/embed", request)
        vectors = answer.get("embeddings")
        if not isinstance(vectors, list) or not vectors or not isinstance(vectors[0], list):
            raise self._odd("embeddings")
        vector = tuple(float(value) for value in vectors[0] if isinstance(value, int | float))
        return Embedding(vector, truncated=bool(answer.get("truncated")))

    async def ask_line(self, path: str, body: JsonObject) -> LineAnswer:
        """POST to a route of OpenAI's dialect, behind interactive requests. An error is an answer, too."""
        headers = {"x-puna-background": "true"}
        async with self._asked("POST", path, body, headers=headers) as response:
            if response.status == 401:
                raise KeyRefused(self.url, sent="authorization" in self._headers)
            try:
                answer = json.loads(await response.read())
            except Broken as error:
                raise ConnectionLost(self.url, _reason(error)) from error
            except ValueError as error:
                raise self._odd(path) from error
        wait = response.headers.get("retry-after", "1")
        again = response.headers.get("x-should-retry") == "true"
        return LineAnswer(
            response.status,
            response.headers.get("x-request-id", ""),
            {name: text for name, text in response.headers.items() if name.startswith("x-puna-") and name != IDENTITY},
            (float(wait) if wait.isdigit() else 1.0) if again else None,
            answer,
        )

    # ---------------------------------------------------------------------------------------------------- plumbing

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        body: JsonObject | None = None,
        *,
        data: Body | None = None,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[Response]:
        """The answer, which is no refusal."""
        async with self._asked(method, path, body, data=data, headers=headers) as response:
            if response.status == 401:
                raise KeyRefused(self.url, sent="authorization" in self._headers)
            if response.status >= 300:
                raise ServerRefused(response.status, await self._refusal(response))
            yield response

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        body: JsonObject | None = None,
        *,
        data: Body | None = None,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[Response]:
        """The answer, whatever it is."""
        await self.identify()
        sent = dict(self._headers)
        if body is not None:
            data = Body.of(json.dumps(body).encode())
            sent["content-type"] = "application/json"
        async with AsyncExitStack() as stack:
            asking = self._transport.request(method, path, {**sent, **(headers or {})}, data)
            try:
                response = await stack.enter_async_context(asking)
            except NotConnected as error:
                raise ServerUnreachable(self.url, _reason(error), local=self.local) from error
            except Broken as error:
                raise ConnectionLost(self.url, _reason(error)) from error
            yield response

    async def _refusal(self, response: Response) -> str:
        try:
            text = (await response.read()).decode(errors="replace")
        except Broken as error:
            raise ConnectionLost(self.url, _reason(error)) from error
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and isinstance(answer.get("error"), str):
            return str(answer["error"])
        return text.strip() or f"{response.status} {response.reason or ''}".strip()

    async def _json(self, method: str, path: str, body: JsonObject | None = None) -> JsonObject:
        async with self._request(method, path, body) as response:
            try:
                answer = json.loads(await response.read())
            except Broken as error:
                raise ConnectionLost(self.url, _reason(error)) from error
            except ValueError as error:
                raise self._odd(path) from error
        if not isinstance(answer, dict):
            raise self._odd(path)
        return answer

    def _odd(self, what: str) -> ServerRefused:
        return ServerRefused(200, f"the server at {self.url} answered {what} in a way that Puna does not understand")

    async def _lines(self, response: Response) -> AsyncIterator[JsonObject]:
        """The objects of an NDJSON stream; a line with `error` is raised."""
        rest = b""
        try:
            async for data in response.pieces():
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > _LINE_LIMIT:
                    raise self._odd("a line over 64 MiB")
                for line in lines:
                    if line.strip():
                        yield self._object(line)
        except Broken as error:
            raise ConnectionLost(self.url, _reason(error)) from error
        if rest.strip():
            yield self._object(rest)

    def _object(self, line: bytes) -> JsonObject:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise self._odd("a stream") from error
        if not isinstance(value, dict):
            raise self._odd("a stream")
        if "error" in value:
            raise ServerRefused(200, str(value["error"]))
        return value

    async def _progress(self, path: str, body: JsonObject) -> AsyncIterator[Progress]:
        from puna.types import Progress

        async with self._request("POST", path, {**body, "stream": True}) as response:
            status = ""
            async for item in self._lines(response):
                status = _text(item, "status")
                digest = _text(item, "digest") or None
                yield Progress(status, digest, _integer(item, "total"), _integer(item, "completed"))
            if status != "success":
                raise ConnectionLost(self.url, "it ended without success")

    async def _chunks(self, response: Response, read: Callable[[JsonObject], Chunk]) -> AsyncIterator[Chunk]:
        async for item in self._lines(response):
            chunk = read(item)
            yield chunk
            if chunk.stats is not None:
                return
        raise ConnectionLost(self.url, "it ended before it was done")


# ------------------------------------------------------------------------------------------------- reading answers


def _generate_chunk(item: JsonObject) -> Chunk:
    return _chunk(item, _text(item, "response"), item)


def _chat_chunk(item: JsonObject) -> Chunk:
    message = _object_of(item, "message")
    return _chunk(item, _text(message, "content"), message)


def _chunk(item: JsonObject, text: str, holder: JsonObject) -> Chunk:
    calls = tuple(_call(_object_of(call, "function")) for call in _objects(holder, "tool_calls"))
    if not item.get("done"):
        return Chunk(text, _text(holder, "thinking"), calls)
    stats = Stats(
        total_ns=_integer(item, "total_duration") or 0,
        load_ns=_integer(item, "load_duration") or 0,
        prompt_tokens=_integer(item, "prompt_eval_count") or 0,
        prompt_ns=_integer(item, "prompt_eval_duration") or 0,
        tokens=_integer(item, "eval_count") or 0,
        decode_ns=_integer(item, "eval_duration") or 0,
    )
    return Chunk(text, _text(holder, "thinking"), calls, stats)


def _call(function: JsonObject) -> MadeCall:
    return MadeCall(_text(function, "name"), json.dumps(function.get("arguments"), ensure_ascii=False))


def _notices(response: Response) -> tuple[str, ...]:
    notices = []
    if ignored := response.headers.get("x-puna-ignored"):
        notices.append(f"no effect: {ignored}")
    if truncated := response.headers.get("x-puna-truncated"):
        notices.append(f"{truncated} earlier message(s) did not fit into the context and were left out")
    return tuple(notices)


def _summary(item: JsonObject) -> ModelSummary:
    return ModelSummary(
        name=_text(item, "name"),
        digest=_text(item, "digest"),
        size=_integer(item, "size") or 0,
        modified=_moment(_text(item, "modified_at")),
        details=_details(item),
        remote=bool(_text(item, "remote_model")),
    )


def _running(item: JsonObject) -> RunningModel:
    return RunningModel(
        name=_text(item, "name"),
        digest=_text(item, "digest"),
        size=_integer(item, "size") or 0,
        size_vram=_integer(item, "size_vram") or 0,
        num_ctx=_integer(item, "context_length") or 0,
        expires=_moment(_text(item, "expires_at")),
        engine=_text(item, "engine"),
        engine_reason=_text(item, "engine_reason"),
    )


def _waiting(item: JsonObject) -> WaitingRequest:
    waited = item.get("waited")
    seconds = float(waited) if isinstance(waited, int | float) else 0.0
    return WaitingRequest(_text(item, "model"), _text(item, "state"), seconds)


def _card(answer: JsonObject) -> ModelCard:
    capabilities = answer.get("capabilities")
    return ModelCard(
        license=_text(answer, "license"),
        modelfile=_text(answer, "modelfile"),
        parameters=_text(answer, "parameters"),
        template=_text(answer, "template"),
        system=_text(answer, "system"),
        details=_details(answer),
        capabilities=tuple(str(word) for word in capabilities) if isinstance(capabilities, list) else (),
        info=_object_of(answer, "model_info"),
        projector=_object_of(answer, "projector_info"),
        tensors=tuple(_tensor(item) for item in _objects(answer, "tensors")),
        messages=tuple((_text(item, "role"), _text(item, "content")) for item in _objects(answer, "messages")),
        tool_syntax=_text(answer, "tool_syntax"),
        source=_text(answer, "source"),
        engine=_text(answer, "engine"),
        engine_reason=_text(answer, "engine_reason"),
        rendered_by=_text(answer, "rendered_by"),
        unused=_text(answer, "unused"),
    )


def _tensor(item: JsonObject) -> tuple[str, str, tuple[int, ...]]:
    shape = item.get("shape")
    sides = tuple(side for side in shape if isinstance(side, int)) if isinstance(shape, list) else ()
    return _text(item, "name"), _text(item, "type"), sides


def _details(holder: JsonObject) -> Details:
    details = _object_of(holder, "details")
    return Details(_text(details, "family"), _text(details, "parameter_size"), _text(details, "quantization_level"))


def _text(item: JsonObject, key: str) -> str:
    value = item.get(key)
    return value if isinstance(value, str) else ""


def _integer(item: JsonObject, key: str) -> int | None:
    value = item.get(key)
    return value if isinstance(value, int) else None


def _object_of(item: JsonObject, key: str) -> JsonObject:
    value: JsonValue = item.get(key)
    return value if isinstance(value, dict) else {}


def _objects(item: JsonObject, key: str) -> list[JsonObject]:
    value = item.get(key)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _moment(text: str) -> datetime:
    """RFC 3339, whose nanoseconds Python's own reader before 3.11 does not take."""
    head, dot, tail = text.partition(".")
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}.{tail[:digits][:6].ljust(6, '0')}{tail[digits:]}"
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return datetime.fromtimestamp(0, timezone.utc)
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


# ---------------------------------------------------------------------------------------------------------- details


def _file_body(path: Path, sent: Callable[[int], None]) -> Body:
    length = path.stat().st_size
    return Body(_file_chunks(path, length, sent), length)


def _file_chunks(path: Path, length: int, sent: Callable[[int], None]) -> Iterator[bytes]:
    """What the file had when it was measured."""
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(min(_UPLOAD_CHUNK, length - total)):
            yield chunk
            total += len(chunk)
            sent(total)


def _transport(address: Address, *, proxied: bool, direct: bool) -> Transport | DirectTransport:
    if direct:
        from puna.direct import DirectTransport

        return DirectTransport(address, proxied=proxied)
    from puna.transport import Transport

    return Transport(address, proxied=proxied)


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _plain(text: str) -> str:
    """A stranger's text, fit for a terminal."""
    return "".join(character for character in text[:80] if character.isprintable())


def _reason(error: BaseException) -> str:
    """What a NotConnected or Broken came of, in a few words."""
    cause = error.__cause__ or error
    if isinstance(cause, http.client.RemoteDisconnected):
        return "it closed the connection"
    if isinstance(cause, http.client.IncompleteRead):
        return "it ended early"
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno in errno.errorcode:
        return os.strerror(cause.errno).lower()
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return text or type(cause).__name__
