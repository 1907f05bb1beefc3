"""`/v1/files`: files that callers give the server to keep."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from starlette.requests import Request
from starlette.responses import Response

from puna.errors import InvalidRequest
from puna.server.body import JsonReply
from puna.server.files.bodies import FileForm, FilePurpose
from puna.server.files.reading import find_kept, stay
from puna.server.kept_files import KeptContent, file_json, new_file, read_kept
from puna.server.openai.paging import page_json, read_query
from puna.server.openai.wording import WORDING
from puna.server.owner import owner_of
from puna.server.services import Services
from puna.state.records import Delete, Put

_PURPOSES = (*get_args(FilePurpose), "batch_output")
_MOST_LISTED = 10_000


class Files:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._state = services.state

    async def create(self, request: Request) -> Response:
        most = self._services.settings.max_file
        kept = read_kept(self._services, request, FileForm, "file", most, "PUNA_MAX_FILE", WORDING)
        async with kept as (form, stored, part):
            if not stored.size:
                raise InvalidRequest("Invalid 'file': the file is empty.", param="file")
            said = form.expires_after.seconds if form.expires_after else None
            record = new_file(
                owner_of(request),
                stored,
                filename=part.filename or "file",
                purpose=form.purpose,
                media_type=part.media_type,
                seconds=stay(form.purpose, said),
            )
            await self._state.apply(Put(record, new=True))
        return JsonReply(file_json(record))

    async def list(self, request: Request) -> Response:
        query = read_query(request, default=_MOST_LISTED, most=_MOST_LISTED, others=("purpose",))
        purpose = request.query_params.get("purpose")
        if purpose:
            if purpose not in _PURPOSES:
                raise InvalidRequest(
                    f"Invalid value: '{purpose[:100]}'. Supported values are: {', '.join(map(repr, _PURPOSES))}.",
                    param="purpose",
                )
            query = replace(query, having={"purpose": purpose})
        return JsonReply(page_json(await self._state.page("file", owner_of(request), query), file_json))

    async def retrieve(self, request: Request) -> Response:
        return JsonReply(file_json(await find_kept(self._services, request, "file", "File")))

    async def delete(self, request: Request) -> Response:
        record = await find_kept(self._services, request, "file", "File")
        await self._state.apply(Delete("file", record.id, record.owner))
        return JsonReply({"id": record.id, "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        """The bytes; those of a `Range` alone, where one is asked for."""
        record = await find_kept(self._services, request, "file", "File")
        return KeptContent(self._state, record)
