"""`/v1/files` as Anthropic's clients ask for it: the same files as OpenAI's clients see, in another form."""

from __future__ import annotations

import mimetypes
from dataclasses import replace
from datetime import datetime, timezone

from starlette.requests import Request
from starlette.responses import Response

from puna.errors import InvalidRequest, Unsupported
from puna.server.anthropic.bodies import FileUploadForm
from puna.server.anthropic.paging import naming_cursors, read_page
from puna.server.anthropic.wording import WORDING
from puna.server.body import JsonReply
from puna.server.contract.report import Report
from puna.server.kept_files import KeptContent, find_file, new_file, read_kept
from puna.server.owner import owner_of
from puna.server.services import Services
from puna.state.records import Delete, Put, Query, Record
from puna.types import JsonObject, JsonValue

_CURSOR = "page_"
"""What the cursor of a page begins with; the id of the last file before it follows."""

_MOST_IDS = 100


class MessageFiles:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._state = services.state

    async def upload(self, request: Request) -> Response:
        most = self._services.settings.max_file
        kept = read_kept(self._services, request, FileUploadForm, "file", most, "PUNA_MAX_FILE", WORDING)
        async with kept as (form, stored, part):
            if not stored.size:
                raise InvalidRequest("Invalid 'file': the file is empty.", param="file")
            record = new_file(
                owner_of(request),
                stored,
                filename=part.filename or "unnamed",
                purpose="user_data",
                media_type=part.media_type,
                seconds=form.expires_in_seconds,
            )
            await self._state.apply(Put(record, new=True))
        return JsonReply(metadata_json(record))

    async def list(self, request: Request) -> Response:
        said, owner = request.query_params, owner_of(request)
        ids = [*said.getlist("ids"), *said.getlist("ids[]")]
        query = _query(request, ids)
        if ids:
            found = [await self._state.get("file", id_, owner) for id_ in dict.fromkeys(ids)]
            return JsonReply(_page([record for record in found if record is not None], more=False))
        with naming_cursors("page" if said.get("page") else None):
            page = await self._state.page("file", owner, query)
        return JsonReply(_page(page.records, more=page.more and query.before is None, has_more=page.more))

    async def retrieve(self, request: Request) -> Response:
        return JsonReply(metadata_json(await self._file(request)))

    async def delete(self, request: Request) -> Response:
        record = await self._file(request)
        await self._state.apply(Delete("file", record.id, record.owner))
        return JsonReply({"id": record.id, "type": "file_deleted"})

    async def download(self, request: Request) -> Response:
        return KeptContent(self._state, await self._file(request))

    async def _file(self, request: Request) -> Record:
        Report(request.state, [name for name in request.query_params if name != "beta"])
        return await find_file(self._state, owner_of(request), request.path_params["id"], "id")


def metadata_json(record: Record) -> JsonObject:
    """Anthropic's file object."""
    filename = str(record.body["filename"])
    said = str(record.body["media_type"]).partition(";")[0].strip()
    return {
        "id": record.id,
        "type": "file",
        "filename": filename,
        "mime_type": said or mimetypes.guess_type(filename)[0] or "application/octet-stream",
        "size_bytes": record.content_size,
        "created_at": _moment(record.created),
        "expires_at": None if record.expires is None else _moment(record.expires),
        "downloadable": True,
        "scope": None,
    }


def _moment(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
    return text.replace("+00:00", "Z")


def _query(request: Request, ids: list[str]) -> Query:
    """By the cursor of a page, or by ids, as older clients do. All that it says is checked."""
    said = request.query_params
    query = read_page(request, others=("page", "scope_id", "beta"), lists=("ids", "ids[]"))
    cursor = said.get("page")
    if said.get("scope_id"):
        raise Unsupported("'scope_id': there are no sessions here that files could be of.", param="scope_id")
    if ids and (cursor or "limit" in said):
        raise InvalidRequest("'ids' goes neither with 'page' nor with 'limit'.", param="ids")
    if len(set(ids)) > _MOST_IDS:
        raise InvalidRequest(f"Invalid 'ids': at most {_MOST_IDS} can be given.", param="ids")
    if not cursor:
        return query
    if query.after or query.before:
        raise InvalidRequest("'page' goes neither with 'after_id' nor with 'before_id'.", param="page")
    if not cursor.startswith(_CURSOR):
        raise InvalidRequest("Invalid 'page': expected the 'next_page' of an earlier answer.", param="page")
    return replace(query, after=cursor.removeprefix(_CURSOR))


def _page(records: list[Record] | tuple[Record, ...], *, more: bool, has_more: bool = False) -> JsonObject:
    shown: list[JsonValue] = [metadata_json(record) for record in records]
    first, last = (records[0].id, records[-1].id) if records else (None, None)
    return {
        "data": shown,
        "next_page": f"{_CURSOR}{last}" if more and records else None,
        "has_more": has_more,
        "first_id": first,
        "last_id": last,
    }
