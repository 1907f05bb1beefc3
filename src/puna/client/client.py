"""The command's view of a server: each native route is one typed method. Knows HTTP, and no room of the server.

Answers are converted here: outside, a `ModelSummary` or a `Chunk`, never a dict. Whatever fails is one of three errors:
`ServerUnreachable` (no server, or the connection broke), `NotPuna` (something else answers there) and `ServerRefused`
(it answered with an error). What only some routes answer is imported where it is read: a short command waits for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote

from puna.client.channel import Channel
from puna.client.errors import ConnectionLost, ServerRefused
from puna.client.fields import integer_of, objects_of, text_of
from puna.client.models import ModelSummary, RunningModel, WaitingRequest
from puna.client.roundtrip import Body
from puna.settings import Address

if TYPE_CHECKING:
    from puna.client.answers import AnswerStream, Chunk, Embedding, LineAnswer
    from puna.client.card import MemoryNeed, ModelCard
    from puna.client.offers import Offered, Renewal, SearchResult
    from puna.client.response import Response
    from puna.client.verification import DamagedFile, VerifiedStore
    from puna.types import JsonObject, Progress

_UPLOAD_CHUNK = 1024 * 1024


class Client:
    """Use in `async with`. Every method may be called many times and at once; a request has a connection of its own.

    `on_identified` is told the server's version, once. `direct`: no event loop is there (`puna.client.direct`).
    """

    def __init__(
        self,
        address: Address,
        *,
        api_key: str | None = None,
        on_identified: Callable[[str], None] = lambda version: None,
        direct: bool = False,
    ) -> None:
        self._channel = Channel(address, api_key=api_key, on_identified=on_identified, direct=direct)
        self.url = self._channel.url
        self.local = self._channel.local

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def identify(self, seconds: float | None = None) -> str:
        """The version of the Puna that answers. ServerUnreachable when nothing does, NotPuna when something else does.

        Takes no key. `seconds`: for which it may keep silent; a few if not told.
        """
        return await self._channel.identify(seconds)

    # ----------------------------------------------------------------------------------------------------- models

    async def models(self) -> tuple[ModelSummary, ...]:
        answer = await self._channel.json("GET", "/api/tags")
        return tuple(ModelSummary.read(item) for item in objects_of(answer, "models"))

    async def running(self) -> tuple[RunningModel, ...]:
        return (await self.at_work())[0]

    async def at_work(self) -> tuple[tuple[RunningModel, ...], tuple[WaitingRequest, ...]]:
        """The models that are loaded, and the requests that wait for one."""
        answer = await self._channel.json("GET", "/api/ps")
        running = tuple(RunningModel.read(item) for item in objects_of(answer, "models"))
        return running, tuple(WaitingRequest.read(item) for item in objects_of(answer, "queue"))

    async def show(self, model: str, *, verbose: bool = False) -> ModelCard:
        from puna.client.card import ModelCard

        return ModelCard.read(await self._channel.json("POST", "/api/show", {"model": model, "verbose": verbose}))

    async def copy(self, source: str, destination: str) -> None:
        async with self._channel.request("POST", "/api/copy", {"source": source, "destination": destination}):
            pass

    async def delete(self, model: str) -> None:
        async with self._channel.request("DELETE", "/api/delete", {"model": model}):
            pass

    async def load(self, model: str, keep_alive: str | None = None, options: JsonObject | None = None) -> None:
        """Returns when the model is in memory."""
        body: JsonObject = {"model": model, "stream": False}
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        if options:
            body["options"] = options
        await self._channel.json("POST", "/api/generate", body)

    async def unload(self, model: str) -> None:
        await self._channel.json("POST", "/api/generate", {"model": model, "stream": False, "keep_alive": 0})

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
        from puna.client.offers import Renewal

        body: JsonObject = {"models": list(models), "insecure": insecure}
        answer = await self._channel.json("POST", "/api/outdated", body)
        return tuple(Renewal.read(item) for item in objects_of(answer, "models"))

    async def offer(self, model: str, *, insecure: bool = False) -> Offered:
        """What a pull would bring now. Nothing is fetched."""
        from puna.client.offers import Offered

        return Offered.read(await self._channel.json("POST", "/api/offer", {"model": model, "insecure": insecure}))

    async def estimate(self, model: str, num_ctx: int | None) -> MemoryNeed:
        """Loads nothing. `num_ctx` None: as a request that asks for none."""
        from puna.client.card import MemoryNeed

        options: JsonObject = {} if num_ctx is None else {"num_ctx": num_ctx}
        return MemoryNeed.read(await self._channel.json("POST", "/api/estimate", {"model": model, "options": options}))

    async def search(self, word: str, *, insecure: bool) -> SearchResult:
        from puna.client.offers import SearchResult

        return SearchResult.read(await self._channel.json("POST", "/api/search", {"word": word, "insecure": insecure}))

    async def verify(
        self, model: str, *, repair: bool, insecure: bool = False
    ) -> AsyncIterator[Progress | DamagedFile | VerifiedStore]:
        """`model`: '' for all. Last comes the VerifiedStore."""
        from puna.client.verification import DamagedFile, VerifiedStore

        body: JsonObject = {"model": model, "repair": repair, "insecure": insecure, "stream": True}
        async with self._channel.request("POST", "/api/verify", body) as response:
            async for item in self._channel.lines(response):
                if text_of(item, "status") == "success":
                    yield VerifiedStore.read(item)
                    return
                yield DamagedFile.read(item) if "fault" in item else _progress(item)
        raise ConnectionLost(self.url, "it ended without success")

    def create(self, request: JsonObject) -> AsyncIterator[Progress]:
        """`request` is the body of `/api/create`."""
        return self._progress("/api/create", request)

    async def has_blob(self, digest: str) -> bool:
        """`digest`: 'sha256:…'."""
        try:
            async with self._channel.request("HEAD", f"/api/blobs/{digest}"):
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
            async with self._channel.request("POST", f"/api/blobs/{digest}", data=Body.of(b""), headers=headers):
                return True
        except ServerRefused as error:
            if 400 <= error.http_status < 500:
                return False
            raise

    async def upload(self, digest: str, path: Path, sent: Callable[[int], None]) -> None:
        """Send the file's bytes; `sent` is told how many have gone so far."""
        async with self._channel.request("POST", f"/api/blobs/{digest}", data=_file_body(path, sent)):
            pass

    # -------------------------------------------------------------------------------------------------- inference

    @asynccontextmanager
    async def generate(self, request: JsonObject) -> AsyncIterator[AnswerStream]:
        """`request` is the body of `/api/generate`. Leaving the block stops the work on the server."""
        from puna.client.answers import AnswerStream, Chunk, notices

        async with self._channel.request("POST", "/api/generate", {**request, "stream": True}) as response:
            yield AnswerStream(self._chunks(response, Chunk.generated), notices(response))

    @asynccontextmanager
    async def chat(self, request: JsonObject) -> AsyncIterator[AnswerStream]:
        """`request` is the body of `/api/chat`. Leaving the block stops the work on the server."""
        from puna.client.answers import AnswerStream, Chunk, notices

        async with self._channel.request("POST", "/api/chat", {**request, "stream": True}) as response:
            yield AnswerStream(self._chunks(response, Chunk.chatted), notices(response))

    async def embed(self, request: JsonObject) -> Embedding:
        """`request` is the body of `/api/embed` with one input."""
        from puna.client.answers import Embedding

        answer = await self._channel.json("POST", "/api/embed", request)
        vectors = answer.get("embeddings")
        if not isinstance(vectors, list) or not vectors or not isinstance(vectors[0], list):
            raise self._channel.odd("embeddings")
        vector = tuple(float(value) for value in vectors[0] if isinstance(value, int | float))
        return Embedding(vector, truncated=bool(answer.get("truncated")))

    async def ask_line(self, path: str, body: JsonObject) -> LineAnswer:
        """POST to a route of OpenAI's dialect, behind interactive requests. An error is an answer, too."""
        from puna.client.answers import LineAnswer

        headers = {"x-puna-background": "true"}
        async with self._channel.asked("POST", path, body, headers=headers) as response:
            return LineAnswer.read(response, await self._channel.value(response, path))

    # ---------------------------------------------------------------------------------------------------- plumbing

    async def _progress(self, path: str, body: JsonObject) -> AsyncIterator[Progress]:
        async with self._channel.request("POST", path, {**body, "stream": True}) as response:
            status = ""
            async for item in self._channel.lines(response):
                status = text_of(item, "status")
                yield _progress(item)
            if status != "success":
                raise ConnectionLost(self.url, "it ended without success")

    async def _chunks(self, response: Response, read: Callable[[JsonObject], Chunk]) -> AsyncIterator[Chunk]:
        async for item in self._channel.lines(response):
            chunk = read(item)
            yield chunk
            if chunk.stats is not None:
                return
        raise ConnectionLost(self.url, "it ended before it was done")


def _progress(item: JsonObject) -> Progress:
    from puna.types import Progress

    digest = text_of(item, "digest") or None
    return Progress(text_of(item, "status"), digest, integer_of(item, "total"), integer_of(item, "completed"))


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
