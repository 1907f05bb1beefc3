"""`/v1/batches`: files of requests, answered behind interactive work."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from puna.errors import Conflict, InvalidRequest, NotFound, StateError
from puna.server.batch.batch import WINDOW_SECONDS, RequestBatch
from puna.server.batch.work import BatchWork
from puna.server.body import JsonReply
from puna.server.files.bodies import BatchBody
from puna.server.files.reading import find_kept, now, read_body
from puna.server.kept_files import find_file
from puna.server.openai.paging import page_json, read_query
from puna.server.owner import owner_of
from puna.server.services import Services
from puna.types import JsonObject, JsonValue

MAX_INPUT = 200 * 1024 * 1024
"""Bytes of a batch's input."""

DIALECT = "openai"
"""Whose batches these are, among all that are kept."""

_TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


class Batches:
    def __init__(self, services: Services, work: BatchWork) -> None:
        self._services = services
        self._state = services.state
        self._work = work

    async def create(self, request: Request) -> Response:
        body = await read_body(self._services, request, BatchBody)
        owner = owner_of(request)
        file = await find_file(self._state, owner, body.input_file_id, "input_file_id")
        if (purpose := file.body["purpose"]) != "batch":
            raise InvalidRequest(
                f"Invalid 'input_file_id': the file's purpose is '{purpose}', not 'batch'.", param="input_file_id"
            )
        if file.content_size > MAX_INPUT:
            raise InvalidRequest(
                f"Invalid 'input_file_id': the file has {file.content_size} bytes, at most {MAX_INPUT} are allowed.",
                param="input_file_id",
            )
        assert file.content is not None
        created = now()
        metadata: JsonObject | None = None if body.metadata is None else {**body.metadata}
        batch = RequestBatch(
            id=f"batch_{secrets.token_hex(12)}",
            owner=owner,
            dialect=DIALECT,
            endpoint=body.endpoint,
            input=file.content,
            created=created,
            expires=created + WINDOW_SECONDS,
            seconds=body.output_expires_after.seconds if body.output_expires_after else None,
            details={"input_file_id": file.id, "metadata": metadata},
        )
        try:
            await self._work.submit(batch)
        except StateError:
            await find_file(self._state, owner, file.id, "input_file_id")  # it may have been deleted meanwhile
            raise
        return JsonReply(batch_json(batch))

    async def list(self, request: Request) -> Response:
        query = replace(read_query(request), having={"dialect": DIALECT})
        page = await self._state.page("batch", owner_of(request), query)
        batches = await asyncio.gather(*(self._work.current(RequestBatch.read(record)) for record in page.records))
        shown = {batch.id: batch_json(batch) for batch in batches}
        return JsonReply(page_json(page, lambda record: shown[record.id]))

    async def retrieve(self, request: Request) -> Response:
        return JsonReply(batch_json(await self._found(request)))

    async def cancel(self, request: Request) -> Response:
        batch = await self._found(request)
        if batch.ended:
            raise Conflict(f"Batch {batch.id} is {batch.status} already: it cannot be cancelled.")
        return JsonReply(batch_json(await self._work.cancel(batch)))

    async def _found(self, request: Request) -> RequestBatch:
        batch = RequestBatch.read(await find_kept(self._services, request, "batch", "Batch"))
        if batch.dialect != DIALECT:
            raise NotFound(f"No such Batch object: {batch.id}", param="id")
        return await self._work.current(batch)


def batch_json(batch: RequestBatch) -> JsonObject:
    """OpenAI's batch object."""
    usage = batch.usage
    faults: list[JsonValue] = [fault.shown for fault in batch.faults]
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": faults} if faults else None,
        "input_file_id": batch.details["input_file_id"],
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": batch.output,
        "error_file_id": batch.errors,
        "created_at": int(batch.created),
        "expires_at": int(batch.expires),
        **{f"{name}_at": int(batch.times[name]) if name in batch.times else None for name in _TIMES},
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": {
            "input_tokens": usage.input,
            "input_tokens_details": {"cached_tokens": usage.cached},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.input + usage.output,
        },
        "metadata": batch.details["metadata"],
    }
