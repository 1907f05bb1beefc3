"""What fills the store: `/api/pull`, `/api/push`, `/api/create`, `/api/blobs/{digest}`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from puna.create import CreateRequest, check_request, create
from puna.errors import Cancelled, DigestMismatch, Forbidden, InvalidRequest, ModelNotFound, NotFound, PunaError
from puna.lane import in_hashing, in_uploads, on_trial, while_taking
from puna.model.digest import Digest
from puna.model.name import Name
from puna.model.reference import Reference
from puna.server.body import JsonReply, beside, dump_line
from puna.server.ollama.bodies import CreateBody, PullBody, TransferBody, VerifyBody
from puna.server.ollama.exchange import is_local, read_body, required
from puna.server.ollama.messages import to_message
from puna.server.services import Services
from puna.server.streaming import NDJSON, EventStream, unless_gone
from puna.sources.mend import DamageReport, verify
from puna.sources.source import LocalFile, Terms
from puna.store.blobs import BlobWriter, stop_when
from puna.types import JsonObject, JsonValue, Progress

LOCAL_FILE = "x-puna-local-file"
"""Header of a blob's POST: the absolute, percent-encoded path of a file on this machine that holds the bytes."""

_BLOCK = 1 << 20


class TransferRoutes:
    def __init__(self, services: Services) -> None:
        self._library = services.library
        self._sources = services.sources
        self._cage = services.cage
        self._strict = services.settings.strict

    async def pull(self, request: Request) -> ASGIApp:
        body, _ = await read_body(request, PullBody, strict=self._strict)
        wanted = Reference.parse(required(body.target))
        files = tuple(LocalFile(Path(path), Digest.parse(text, param="files")) for path, text in body.files.items())
        terms = replace(_terms(body, request), manifest=wanted.digest, files=files)
        await asyncio.to_thread(self._sources.check, wanted.name, terms)
        return await self._answer(request, self._sources.pull(wanted.name, terms), stream=body.stream)

    async def push(self, request: Request) -> ASGIApp:
        body, _ = await read_body(request, TransferBody, strict=self._strict)
        name, terms = Name.parse(required(body.target)), _terms(body, request)
        steps = await asyncio.to_thread(self._sources.push, name, terms)
        return await self._answer(request, steps, stream=body.stream)

    async def verify(self, request: Request) -> ASGIApp:
        """Ours: Ollama has none. Each damaged file is told as it is found, and last how many there were."""
        body, _ = await read_body(request, VerifyBody, strict=self._strict)
        names = await asyncio.to_thread(self._named, body.model)
        terms = Terms(insecure=body.insecure, local=is_local(request))
        found = verify(names, self._library, self._sources, repair=body.repair, terms=terms)
        steps = verified(names, found)
        if body.stream:
            return EventStream(_dumped(steps), NDJSON)
        return JsonReply(await unless_gone(request.receive, _found(steps)))

    def _named(self, model: str) -> list[Name]:
        """One model, or all."""
        if not model:
            return self._library.names()
        name = self._library.spelled(Name.parse(model))
        if not self._library.has(name):
            raise ModelNotFound(name.short, near=self._library.near(name))
        return [name]

    async def create(self, request: Request) -> ASGIApp:
        body, report = await read_body(request, CreateBody, strict=self._strict)
        wanted = await beside(request, lambda: create_request(body))
        ignored = await on_trial(lambda: check_request(wanted, self._cage))
        report.ignore(f"parameters.{name}" for name in ignored)
        steps = create(wanted, self._library, self._sources, self._cage, local=is_local(request))
        return await self._answer(request, steps, stream=body.stream)

    async def _answer(self, request: Request, steps: AsyncGenerator[Progress, None], *, stream: bool) -> ASGIApp:
        """All steps as they come, or the last one alone."""
        if stream:
            return EventStream(_lines(steps), NDJSON)
        return JsonReply(await unless_gone(request.receive, _last(steps)))

    # ----------------------------------------------------------------------------------------------------------- blobs

    async def has_blob(self, request: Request) -> Response:
        digest = Digest.parse(request.path_params["digest"])
        if not await unless_gone(request.receive, self._claimed(digest)):
            raise NotFound(f'blob "{digest}" not found')
        return Response()

    async def _claimed(self, digest: Digest) -> bool:
        """Whether it is there and whole, and then stays for a while: the client is about to make a model of it."""

        def look(left: Callable[[], bool]) -> bool:
            self._library.blobs.claim(digest)
            return self._library.blobs.intact(digest, on_bytes=stop_when(left))

        return await in_hashing(look)

    async def add_blob(self, request: Request) -> Response:
        """201 when it is new, 200 when it was there already."""
        digest = Digest.parse(request.path_params["digest"])
        try:
            if await self._claimed(digest):
                async for _ in request.stream():
                    pass  # read to its end, so that the connection can be used again
                return Response()
            if (path := request.headers.get(LOCAL_FILE)) is not None:
                async for _ in request.stream():
                    pass  # what is left unread would hide that the client goes away
                await unless_gone(request.receive, self._take_local(request, Path(unquote(path)), digest))
            else:
                await self._receive(request, digest)
        except ClientDisconnect as error:
            raise Cancelled("The client closed the connection.") from error
        except DigestMismatch as error:
            raise InvalidRequest(str(error), code="digest_mismatch") from error
        return Response(status_code=201)

    async def _receive(self, request: Request, digest: Digest) -> None:
        async with _writing(self._library.blobs.writer(digest)) as writer:
            block = bytearray()
            async for data in request.stream():
                block += data
                if len(block) >= _BLOCK:
                    await in_uploads(partial(writer.write, bytes(block)))
                    block.clear()
            await in_uploads(partial(writer.write, bytes(block)))

    async def _take_local(self, request: Request, path: Path, digest: Digest) -> None:
        """Take a file by its path, so that no second copy is made.

        Safe, because a client that knows the sha256 of a file has read it: nothing comes out of this that it could not
        have uploaded. Whatever is wrong with the path, the refusal is the same and tells nothing about the file.
        """
        if not is_local(request):
            raise Forbidden(f"{LOCAL_FILE} is only for programs on this machine")
        try:
            if not path.is_absolute():
                raise NotFound(path.name)
            await while_taking(lambda left: self._library.blobs.add_file(path, stop_when(left), expected=digest))
        except (PunaError, OSError, ValueError) as error:
            raise InvalidRequest(
                "this file cannot be taken from where it is: send its bytes", param=LOCAL_FILE, code="local_file"
            ) from error


def _terms(body: TransferBody, request: Request) -> Terms:
    return Terms(insecure=body.insecure, literal=Name.writes_host(body.target), local=is_local(request))


def create_request(body: CreateBody) -> CreateRequest:
    licenses: list[str]
    match body.license:
        case None | "":
            licenses = []
        case str():
            licenses = [body.license]
        case list() if all(isinstance(item, str) for item in body.license):
            licenses = cast("list[str]", body.license)
        case _:
            raise InvalidRequest("license must be a text or a list of texts", param="license", code="invalid_type")
    return CreateRequest(
        name=Name.parse(body.target),
        from_=body.from_ or None,
        files=body.files,
        adapters=body.adapters,
        template=body.template or None,
        system=body.system or None,
        license=licenses,
        parameters=body.parameters,
        messages=[to_message(message, f"messages[{index}]") for index, message in enumerate(body.messages)],
        requires=body.requires or None,
        renderer=body.renderer or None,
        parser=body.parser or None,
        quantize=body.quantize or body.quantization or None,
    )


async def verified(
    names: Sequence[Name], steps: AsyncGenerator[Progress | DamageReport, None]
) -> AsyncGenerator[JsonObject, None]:
    """The steps as objects. The last one: how many models were looked at, files found damaged, and mended."""
    damaged = mended = 0
    async with aclosing(steps):
        async for step in steps:
            if isinstance(step, Progress):
                yield _step(step)
                continue
            damaged, mended = damaged + 1, mended + step.mended
            damage = step.damage
            shape: JsonObject = {
                "status": "repaired" if step.mended else "damaged",
                "model": damage.name.short,
                "fault": damage.fault.kind,
                "message": damage.words,
            }
            if damage.layer is not None:
                shape["digest"] = str(damage.layer.digest)
            if step.reason:
                shape["reason"] = step.reason
            yield shape
    yield {"status": "success", "models": len(names), "damaged": damaged, "repaired": mended}


async def _dumped(steps: AsyncGenerator[JsonObject, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(steps):
        async for step in steps:
            yield dump_line(step)


async def _found(steps: AsyncGenerator[JsonObject, None]) -> JsonObject:
    files: list[JsonValue] = []
    last: JsonObject = {}
    async with aclosing(steps):
        async for step in steps:
            last = step
            if "fault" in step:
                files.append(step)
    return last | {"files": files}


def _step(progress: Progress) -> JsonObject:
    step: JsonObject = {"status": progress.status}
    if progress.digest is not None:
        step["digest"] = progress.digest
    if progress.total is not None:
        step["total"] = progress.total
    if progress.completed:
        step["completed"] = progress.completed
    return step


async def _lines(steps: AsyncGenerator[Progress, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(steps):
        async for progress in steps:
            yield dump_line(_step(progress))


async def _last(steps: AsyncGenerator[Progress, None]) -> JsonObject:
    last = Progress("success")
    async with aclosing(steps):
        async for progress in steps:
            last = progress
    return _step(last)


@asynccontextmanager
async def _writing(writer: BlobWriter) -> AsyncIterator[BlobWriter]:
    """A BlobWriter whose beginning and end, which wait for the disk, are in a thread."""
    await in_uploads(writer.__enter__)
    try:
        yield writer
    except BaseException as error:
        await in_uploads(partial(writer.__exit__, type(error), error, error.__traceback__))
        raise
    await in_uploads(partial(writer.__exit__, None, None, None))
