"""`/v1/messages/batches`: many messages as one job, answered behind interactive work."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from itertools import chain, islice
from typing import cast

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from puna.errors import InvalidRequest, NotFound
from puna.server.anthropic.bodies import BatchedMessage, MessageBatchBody
from puna.server.anthropic.heads import VERSION_HEADER, without_effect
from puna.server.anthropic.paging import naming_cursors, read_page
from puna.server.anthropic.wording import WORDING
from puna.server.batch.batch import WINDOW_SECONDS, RequestBatch
from puna.server.batch.lines import written
from puna.server.batch.work import BatchWork
from puna.server.body import JsonReply, parse_json
from puna.server.contract.reading import read_request
from puna.server.owner import owner_of
from puna.server.services import Services
from puna.state.records import Delete
from puna.types import JsonObject, JsonValue

DIALECT = "anthropic"
_ENDPOINT = "/v1/messages"
_STRETCH = 64
"""Lines that are made in one go."""


class MessageBatches:
    def __init__(self, services: Services, work: BatchWork) -> None:
        self._services = services
        self._state = services.state
        self._work = work

    async def create(self, request: Request) -> Response:
        body, report = await read_request(request, MessageBatchBody, WORDING, strict=self._services.settings.strict)
        report.ignore(without_effect(request.headers))
        await asyncio.to_thread(_check, body.requests)
        stored = await self._state.contents.add(_lines(body.requests), most=2**62)
        created = time.time()
        batch = RequestBatch(
            id=f"msgbatch_{secrets.token_hex(12)}",
            owner=owner_of(request),
            dialect=DIALECT,
            endpoint=_ENDPOINT,
            input=stored.digest,
            created=created,
            expires=created + WINDOW_SECONDS,
            one_model=False,
            headers={VERSION_HEADER: version} if (version := request.headers.get(VERSION_HEADER)) else {},
            details={"requests": len(body.requests)},
        )
        await self._work.submit(batch)
        return JsonReply(batch_json(batch, _base(request)))

    async def list(self, request: Request) -> Response:
        query = replace(read_page(request), having={"dialect": DIALECT})
        with naming_cursors():
            page = await self._state.page("batch", owner_of(request), query)
        batches = await asyncio.gather(*(self._work.current(RequestBatch.read(record)) for record in page.records))
        data: list[JsonValue] = [batch_json(batch, _base(request)) for batch in batches]
        first, last = (batches[0].id, batches[-1].id) if batches else (None, None)
        return JsonReply({"data": data, "has_more": page.more, "first_id": first, "last_id": last})

    async def retrieve(self, request: Request) -> Response:
        return JsonReply(batch_json(await self._found(request), _base(request)))

    async def cancel(self, request: Request) -> Response:
        batch = await self._found(request)
        if batch.ended:
            raise InvalidRequest(f"The batch {batch.id} has ended: it cannot be cancelled.", param="id")
        return JsonReply(batch_json(await self._work.cancel(batch), _base(request)))

    async def delete(self, request: Request) -> Response:
        batch = await self._found(request)
        if not batch.ended:
            raise InvalidRequest(f"The batch {batch.id} has not ended: cancel it before it is deleted.", param="id")
        files = [Delete("file", id_, batch.owner) for id_ in (batch.output, batch.errors) if id_ is not None]
        await self._state.apply(*files, Delete("batch", batch.id, batch.owner))
        return JsonReply({"id": batch.id, "type": "message_batch_deleted"})

    async def results(self, request: Request) -> Response:
        batch = await self._found(request)
        if not batch.ended:
            raise InvalidRequest(f"The batch {batch.id} has not ended: it has no results yet.", param="id")
        paths = []
        for id_ in (batch.output, batch.errors):
            if id_ is not None:
                record = await self._state.get("file", id_, batch.owner)
                path = None if record is None or record.content is None else self._state.contents.path(record.content)
                if path is None:
                    raise NotFound(f"Results of the batch {batch.id} were deleted.", param="id")
                paths.append(path)

        async def lines() -> AsyncIterator[bytes]:
            with ExitStack() as files:
                opened = [files.enter_context(await asyncio.to_thread(path.open, "rb")) for path in paths]
                shown = map(result_line, chain.from_iterable(opened))
                while piece := await asyncio.to_thread(lambda: b"".join(islice(shown, _STRETCH))):
                    yield piece

        return StreamingResponse(lines(), media_type="application/x-jsonl")

    async def _found(self, request: Request) -> RequestBatch:
        id_: str = request.path_params["id"]
        record = await self._state.get("batch", id_, owner_of(request))
        batch = None if record is None else RequestBatch.read(record)
        if batch is None or batch.dialect != DIALECT:
            raise NotFound(f"There is no batch '{id_[:100]}'.", param="id")
        return await self._work.current(batch)


def _check(requests: Iterable[BatchedMessage]) -> None:
    """What must be right before there is a batch; all else is told in the results."""
    ids: set[str] = set()
    for index, one in enumerate(requests):
        if one.custom_id in ids:
            raise InvalidRequest(
                f"The custom_id '{one.custom_id}' is there more than once.", param=f"requests[{index}].custom_id"
            )
        ids.add(one.custom_id)
        if not isinstance(one.params.get("model"), str):
            param = f"requests[{index}].params.model"
            raise InvalidRequest(f"Invalid '{param}': expected the name of a model.", param=param)
        if one.params.get("stream"):
            param = f"requests[{index}].params.stream"
            raise InvalidRequest(f"Invalid '{param}': answers of a batch are not streamed.", param=param)


async def _lines(requests: Iterable[BatchedMessage]) -> AsyncIterator[bytes]:
    """The requests as lines of a batch."""
    texts = (
        written({"custom_id": one.custom_id, "method": "POST", "url": _ENDPOINT, "body": one.params})
        for one in requests
    )
    while piece := await asyncio.to_thread(lambda: b"".join(islice(texts, _STRETCH))):
        yield piece


def _base(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('host', '')}"


def batch_json(batch: RequestBatch, base: str) -> JsonObject:
    """Anthropic's batch object. `base`: the address that its results have in front."""
    asked = cast("int", batch.details["requests"])
    left = asked - batch.completed - batch.failed
    counts: JsonObject = {
        "processing": 0 if batch.ended else left,
        "succeeded": batch.completed,
        "errored": batch.failed + (left if batch.status == "failed" else 0),
        "canceled": left if batch.status == "cancelled" else 0,
        "expired": left if batch.status == "expired" else 0,
    }
    cancelled = batch.times.get("cancelling", batch.times.get("cancelled"))
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if batch.ended else "canceling" if batch.status == "cancelling" else "in_progress",
        "request_counts": counts,
        "created_at": _time(batch.created),
        "expires_at": _time(batch.expires),
        "ended_at": _time(batch.times.get(batch.status)) if batch.ended else None,
        "cancel_initiated_at": _time(cancelled),
        "archived_at": None,
        "results_url": f"{base}/v1/messages/batches/{batch.id}/results" if batch.ended else None,
    }


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


_UNANSWERED = {"batch_cancelled": "canceled", "request_cancelled": "canceled", "batch_expired": "expired"}


def result_line(text: bytes) -> bytes:
    """The line of an output or an error file, as this dialect has it."""
    line = cast("JsonObject", parse_json(text))
    response = line["response"]
    result: JsonObject
    if isinstance(response, dict):
        ok = response["status_code"] == 200
        result = {"type": "succeeded", "message": response["body"]} if ok else _errored(response["body"])
    else:
        error = cast("JsonObject", line["error"])
        left = _UNANSWERED.get(cast("str", error["code"]))
        result = {"type": left} if left else _errored({"type": "error", "error": {"type": "api_error", **error}})
    shown: JsonObject = {"custom_id": line["custom_id"], "result": result}
    if isinstance(response, dict) and "headers" in response:
        shown["headers"] = response["headers"]
    return written(shown)


def _errored(error: JsonValue) -> JsonObject:
    return {"type": "errored", "error": error}
