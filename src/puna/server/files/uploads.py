"""`/v1/uploads`: files that come in parts, in any order, each tried again where it failed."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import Response

from puna.errors import Conflict, InvalidRequest, NotFound, PayloadTooLarge
from puna.lane import in_uploads
from puna.server.body import JsonReply
from puna.server.files.bodies import CompleteBody, PartForm, UploadBody
from puna.server.files.reading import find_kept, now, read_body, stay
from puna.server.kept_files import file_json, new_file, read_kept
from puna.server.openai.wording import WORDING
from puna.server.owner import owner_of
from puna.server.services import Services
from puna.state.records import Delete, Put, Query, Record
from puna.types import JsonObject

UPLOAD_SECONDS = 3600
"""How long an upload may take."""

MAX_PART = 64 * 1024 * 1024
"""Bytes of a part."""

_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_PIECE = 256 * 1024


class Uploads:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._state = services.state

    async def create(self, request: Request) -> Response:
        body = await read_body(self._services, request, UploadBody)
        most = self._services.settings.max_file
        if body.bytes > most:
            raise PayloadTooLarge(
                f"Invalid 'bytes': the file is larger than {most} bytes (PUNA_MAX_FILE).", param="bytes"
            )
        created = now()
        record = Record(
            kind="upload",
            id=f"upload_{secrets.token_hex(12)}",
            owner=owner_of(request),
            body={
                "bytes": body.bytes,
                "filename": body.filename,
                "media_type": body.mime_type,
                "purpose": body.purpose,
                "seconds": stay(body.purpose, body.expires_after.seconds if body.expires_after else None),
                "status": "pending",
                "file": None,
            },
            created=created,
            expires=created + UPLOAD_SECONDS,
        )
        await self._state.apply(Put(record, new=True))
        return JsonReply(_shown(record))

    async def add_part(self, request: Request) -> Response:
        await self._pending(request)
        async with read_kept(self._services, request, PartForm, "data", MAX_PART, "", WORDING) as kept:
            _, stored, _ = kept
            if not stored.size:
                raise InvalidRequest("Invalid 'data': the part is empty.", param="data")
            upload = await self._pending(request)  # a part takes a while
            part = Record(
                kind="part",
                id=f"part_{secrets.token_hex(12)}",
                owner=upload.owner,
                body={},
                created=now(),
                parent=upload.id,
                expires=upload.expires,
                content=stored.digest,
                content_size=stored.size,
            )
            await self._state.apply(Put(part, new=True))
        shown: JsonObject = {
            "id": part.id,
            "object": "upload.part",
            "created_at": int(part.created),
            "upload_id": upload.id,
        }
        return JsonReply(shown)

    async def complete(self, request: Request) -> Response:
        body = await read_body(self._services, request, CompleteBody)
        if body.md5 is not None and not _MD5.fullmatch(body.md5):
            raise InvalidRequest("Invalid 'md5': expected 32 hexadecimal digits.", param="md5")
        upload = await self._pending(request)
        parts = await self._parts(upload, body.part_ids)
        size = sum(part.content_size for part in parts)
        if size != upload.body["bytes"]:
            raise InvalidRequest(
                f"Invalid 'part_ids': these parts have {size} bytes, but the upload was made for "
                f"{upload.body['bytes']}.",
                param="part_ids",
            )
        md5 = hashlib.md5(usedforsecurity=False)
        try:
            stored = await self._state.contents.add(self._joined(parts, md5.update), most=size)
        except NotFound:
            await self._pending(request)  # they went because another request ended it
            raise
        try:
            if body.md5 is not None and md5.hexdigest() != body.md5.lower():
                raise InvalidRequest(
                    f"Invalid 'md5': the parts that came have the checksum {md5.hexdigest()}.", param="md5"
                )
            seconds = upload.body["seconds"]
            file = new_file(
                upload.owner,
                stored,
                filename=str(upload.body["filename"]),
                purpose=str(upload.body["purpose"]),
                media_type=str(upload.body["media_type"]),
                seconds=seconds if isinstance(seconds, int) else None,
                # One for an upload, however often and however many at once ask for it.
                id=f"file-{upload.id.removeprefix('upload_')}",
            )
            done = _with(upload, status="completed", file=file_json(file))
            await self._end(request, upload, done, Put(file, new=True))
        except BaseException:
            await self._state.discard(stored.digest)
            raise
        return JsonReply(_shown(done))

    async def cancel(self, request: Request) -> Response:
        upload = await self._pending(request)
        cancelled = _with(upload, status="cancelled")
        await self._end(request, upload, cancelled)
        return JsonReply(_shown(cancelled))

    async def _end(self, request: Request, upload: Record, ended: Record, *others: Put) -> None:
        """Its parts go, it stays. InvalidRequest where another request ended it meanwhile."""
        try:
            await self._state.apply(
                Put(ended, over=upload), Delete("upload", upload.id, upload.owner), Put(ended, new=True), *others
            )
        except Conflict:
            await self._pending(request)
            raise

    async def _pending(self, request: Request) -> Record:
        upload = await find_kept(self._services, request, "upload", "Upload")
        status = upload.body["status"]
        if status != "pending":
            raise InvalidRequest(f"Upload {upload.id} is {status} already.", param="id")
        return upload

    async def _parts(self, upload: Record, ids: Sequence[str]) -> list[Record]:
        """The parts of these ids, each once, in their order."""
        page = await self._state.page("part", upload.owner, Query(parent=upload.id, limit=None))
        known = {part.id: part for part in page.records}
        parts: list[Record] = []
        for index, id_ in enumerate(ids):
            param = f"part_ids[{index}]"
            if id_ not in known:
                raise InvalidRequest(f"Invalid '{param}': no part '{id_[:100]}' of this upload is left.", param=param)
            parts.append(known.pop(id_))
        return parts

    async def _joined(self, parts: Sequence[Record], note: Callable[[bytes], None]) -> AsyncIterator[bytes]:
        for part in parts:
            path = None if part.content is None else self._state.contents.path(part.content)
            try:
                file = None if path is None else await in_uploads(partial(_opened, path))
            except FileNotFoundError:
                file = None
            if file is None:
                raise NotFound(f"The content of {part.id} is gone.", param="part_ids")
            with file:
                while piece := await in_uploads(partial(_read, file, note)):
                    yield piece


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")


def _read(file: BinaryIO, note: Callable[[bytes], None]) -> bytes:
    piece = file.read(_PIECE)
    note(piece)
    return piece


def _with(upload: Record, *, status: str, file: JsonObject | None = None) -> Record:
    return replace(upload, body={**upload.body, "status": status, "file": file})


def _shown(upload: Record) -> JsonObject:
    """OpenAI's upload object."""
    assert upload.expires is not None
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.body["bytes"],
        "created_at": int(upload.created),
        "expires_at": int(upload.expires),
        "filename": upload.body["filename"],
        "purpose": upload.body["purpose"],
        "status": upload.body["status"],
        "file": upload.body["file"],
    }
