"""Files that callers gave the server to keep: made, shown, found again by their id."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from puna.errors import InvalidRequest, NotFound, StateError, UnsatisfiableRange
from puna.lane import in_lane
from puna.server.contract.faults import Wording
from puna.server.contract.forms import read_form
from puna.server.contract.reading import ShapeType
from puna.server.documents import document_text, likely_kind, named_text
from puna.server.multipart import FilePart, FormBounds
from puna.server.services import Services
from puna.state.records import Record
from puna.state.state import State, Stored
from puna.types import JsonObject

MAX_DOCUMENT = 32 * 1024 * 1024
"""Bytes of a file that a model is to read."""

DAY_SECONDS = 24 * 3600


def new_file(
    owner: str,
    stored: Stored,
    *,
    filename: str,
    purpose: str,
    media_type: str = "",
    seconds: float | None = None,
    id: str = "",
) -> Record:
    """The record of a file whose bytes are kept already. `seconds`: how long it stays; None: until it is deleted."""
    now = time.time()
    body: JsonObject = {"filename": filename, "media_type": media_type, "purpose": purpose}
    return Record(
        kind="file",
        id=id or f"file-{secrets.token_hex(12)}",
        owner=owner,
        body=body,
        created=now,
        expires=None if seconds is None else now + seconds,
        content=stored.digest,
        content_size=stored.size,
    )


def file_json(record: Record) -> JsonObject:
    """OpenAI's file object."""
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.content_size,
        "created_at": int(record.created),
        "expires_at": None if record.expires is None else int(record.expires),
        "filename": record.body["filename"],
        "purpose": record.body["purpose"],
        "status": "processed",
        "status_details": None,
    }


async def find_file(state: State, owner: str, id: str, param: str | None) -> Record:
    """NotFound names `param`."""
    record = await state.get("file", id, owner)
    if record is None:
        raise NotFound(f"No such File object: {id[:100]}", param=param)
    return record


@dataclass(frozen=True, slots=True)
class KeptText:
    """What a model reads of a file, and what the file is called."""

    filename: str
    text: str

    def named(self, name: str | None = None) -> str:
        """As it stands in a message: behind its name, or another one."""
        return named_text(name or self.filename, self.text)


async def file_bytes(state: State, owner: str, id: str, param: str, *, most: int) -> tuple[Record, bytes]:
    """A file and what it holds. NotFound, and InvalidRequest over `most` bytes, name `param`."""
    record = await find_file(state, owner, id, param)
    if record.content_size > most:
        raise InvalidRequest(
            f"Invalid '{param}': the file has {record.content_size} bytes, at most {most} can be read.", param=param
        )
    assert record.content is not None
    try:
        return record, await state.contents.read(record.content, most=most)
    except StateError:
        await find_file(state, owner, id, param)  # it may have been deleted meanwhile
        raise


async def file_text(state: State, owner: str, id: str, param: str) -> KeptText:
    """The text of a file. NotFound, InvalidRequest or Unsupported name `param`."""
    record, data = await file_bytes(state, owner, id, param, most=MAX_DOCUMENT)
    filename = str(record.body["filename"])

    def text() -> str:
        return document_text(data, likely_kind(str(record.body["media_type"]), filename, data), param)

    return KeptText(filename, await in_lane(text))


@asynccontextmanager
async def read_kept(
    services: Services,
    request: Request,
    shape: type[ShapeType],
    field: str,
    most: int,
    setting: str,
    wording: Wording,
) -> AsyncIterator[tuple[ShapeType, Stored, FilePart]]:
    """A form with one file, whose bytes are kept; InvalidRequest where it has none. They go when this is left with an
    error: nobody would find them."""
    state = services.state
    kept: list[tuple[Stored, FilePart]] = []

    async def keep(part: FilePart) -> None:
        kept.append((await state.contents.add(part.chunks, most=most), part))

    bounds = FormBounds(files=(field,), file=most, fields=16, field=4096, setting=setting)
    try:
        strict = services.settings.strict
        body, _, _ = await read_form(request, shape, wording, strict=strict, bounds=bounds, keep=keep)
        if not kept:
            raise InvalidRequest(
                f"Missing required parameter: '{field}'.", param=field, code="missing_required_parameter"
            )
        yield body, *kept[0]
    except BaseException:
        for stored, _ in kept:
            await state.discard(stored.digest)
        raise


class KeptContent(FileResponse):
    """A file's bytes, or those of a `Range`, whose faults are told as all others are. It stays until it is told to its
    end.
    """

    def __init__(self, state: State, record: Record) -> None:
        assert record.content is not None
        self._state = state
        self._record = record
        self._digest = record.content
        super().__init__(
            state.contents.path(self._digest) or "",
            media_type="application/octet-stream",
            filename=str(record.body["filename"]),
            headers={"etag": f'"{self._digest}"'},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def checked(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == UnsatisfiableRange.status:
                    raise UnsatisfiableRange(int(self.headers["content-length"]))
                if message["status"] == InvalidRequest.status:
                    raise InvalidRequest("Invalid header 'range': expected bytes=FIRST-LAST.", param="range")
            await send(message)

        self._state.contents.hold(self._digest)
        try:
            if self._state.contents.path(self._digest) is None:
                raise NotFound(f"The content of {self._record.id} is gone.", param="id")
            await super().__call__(scope, receive, checked)
        finally:
            await self._state.discard(self._digest)
