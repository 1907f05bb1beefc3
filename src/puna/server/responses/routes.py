"""Routes of responses. A handler reads and checks a request, asks `Inference` and the state, and frames what comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from puna.errors import InvalidRequest, MethodNotAllowed, NotFound, PunaError, Unsupported
from puna.server.body import JsonReply, beside
from puna.server.contract.reading import ShapeType, read_request
from puna.server.contract.report import Report
from puna.server.openai.paging import items_json, read_query
from puna.server.openai.wording import WORDING
from puna.server.owner import owner_of
from puna.server.responses.background import BackgroundResponses, number_of
from puna.server.responses.bodies import CompactBody, InputTokensBody, ResponseBody
from puna.server.responses.compaction import compacted
from puna.server.responses.convert import to_compacting, to_counted
from puna.server.responses.holds import Holds
from puna.server.responses.ids import ResponseIds
from puna.server.responses.include import NAMES, flag, included, number
from puna.server.responses.live import LiveResponses
from puna.server.responses.making import ResponseMaker
from puna.server.responses.objects import with_included
from puna.server.responses.past import response_input
from puna.server.responses.renewal import Left, ResponseRenewal, as_sent
from puna.server.responses.telling import ResponseEvent, error_told, sse
from puna.server.routing import dialect_route
from puna.server.services import Services
from puna.server.streaming import SSE, EventStream, unless_gone
from puna.server.websocket import offers_websocket
from puna.state.records import Record
from puna.types import JsonObject


def response_routes(services: Services, holds: Holds, background: BackgroundResponses) -> list[Route]:
    api = _Responses(services, holds, background)
    return [
        dialect_route("/v1/responses", {"GET": api.live, "POST": api.create}),
        dialect_route("/v1/responses/input_tokens", {"POST": api.input_tokens}),
        dialect_route("/v1/responses/compact", {"POST": api.compact}),
        dialect_route("/v1/responses/{id}", {"GET": api.retrieve, "DELETE": api.delete}),
        dialect_route("/v1/responses/{id}/cancel", {"POST": api.cancel}),
        dialect_route("/v1/responses/{id}/input_items", {"GET": api.input_items}),
    ]


class _Responses:
    def __init__(self, services: Services, holds: Holds, background: BackgroundResponses) -> None:
        self._services = services
        self._state = services.state
        self._maker = ResponseMaker(services, holds)
        self._background = background

    # ------------------------------------------------------------------------------------------------------ create

    async def create(self, request: Request) -> Response | EventStream:
        body, report = await self._read(request, ResponseBody)
        left: Left | None = getattr(request.state, "left", None)
        work = await self._maker.work(request, body, report, left=left)
        if body.background:
            if left is None:
                sent = await beside(request, lambda: as_sent(body))
                renewal = ResponseRenewal.of(request, sent, work.seed)
            else:
                renewal = left.renewal
            running = await self._background.start(work, renewal, left)
            if body.stream and left is None:
                return _stream(running.follow(-1))
            return JsonReply(work.telling.response)
        if body.stream:
            return _stream(work.told(), work.telling.number)
        return JsonReply(await unless_gone(request.receive, work.whole()))

    async def live(self, request: Request) -> LiveResponses:
        """A connection for many responses."""
        if not offers_websocket(request.headers):
            raise MethodNotAllowed("GET /v1/responses is for WebSockets; ask for a response with POST.")
        return LiveResponses(self._services, self._maker)

    async def input_tokens(self, request: Request) -> Response:
        body, report = await self._read(request, InputTokensBody)
        wanted = await self._maker.wanted(request, body, report, partial(to_counted, body))
        with report.naming():
            counted = await unless_gone(request.receive, self._services.inference.counted(wanted))
        report.counted(counted)
        return JsonReply({"object": "response.input_tokens", "input_tokens": counted.count})

    async def compact(self, request: Request) -> Response:
        body, report = await self._read(request, CompactBody)
        wanted = await self._maker.wanted(request, body, report, partial(to_compacting, body))
        ids = ResponseIds()
        answer = self._services.inference.chat(wanted)
        return JsonReply(await unless_gone(request.receive, compacted(answer, report, ids)))

    # ------------------------------------------------------------------------------------------------------ stored

    async def retrieve(self, request: Request) -> Response | EventStream:
        record = await self._record(request)
        include, after = included(request), number(request, "starting_after")
        known = {*NAMES, "stream", "starting_after", "include_obfuscation"}
        ignored = [name for name in request.query_params if name not in known]
        report = Report(request.state, [*ignored, *["include_obfuscation"] * flag(request, "include_obfuscation")])
        if flag(request, "stream"):
            return await self._follow(record, -1 if after is None else after)
        if after is not None:
            raise InvalidRequest("'starting_after' is only allowed with 'stream'.", param="starting_after")
        record = await self._background.settled(record)
        running = self._background.running(record.id, record.owner)
        response = dict(
            cast("JsonObject", record.body["response"]) if running is None else running.work.telling.response
        )
        response["output"] = with_included(cast("list[JsonObject]", response["output"]), include)
        told = cast("dict[str, str]", record.body["report"]) if running is None else running.work.report.told
        report.repeat(told)
        return JsonReply(response)

    async def _follow(self, record: Record, after: int) -> EventStream:
        running = self._background.running(record.id, record.owner)
        if running is not None:
            return _stream(running.follow(after))
        record = await self._background.own(record)
        running = self._background.running(record.id, record.owner)  # made anew just now
        if running is not None:
            return _stream(running.follow(after))
        events = await self._background.events(record)
        if not events:
            raise Unsupported(
                "Only a response that was made in the background can be followed: it keeps its events.", param="stream"
            )

        async def again() -> AsyncGenerator[ResponseEvent, None]:
            for told in events:
                if number_of(told) > after:
                    yield told

        return _stream(again())

    async def delete(self, request: Request) -> Response:
        record = await self._record(request)
        await self._background.forget(record)
        return JsonReply({"id": record.id, "object": "response", "deleted": True})

    async def cancel(self, request: Request) -> Response:
        record = await self._record(request)
        running = self._background.running(record.id, record.owner)
        if running is not None:
            await self._background.cancel(running)
            return JsonReply(running.work.telling.response)
        response = cast("JsonObject", (await self._background.own(record)).body["response"])
        running = self._background.running(record.id, record.owner)
        if running is not None:  # made anew just now
            await self._background.cancel(running)
            return JsonReply(running.work.telling.response)
        if not response["background"]:
            raise InvalidRequest("Only a response that was made in the background can be cancelled.")
        return JsonReply(response)

    async def input_items(self, request: Request) -> Response:
        record = await self._record(request)
        query = read_query(request, others=NAMES)
        items = with_included(response_input(record), included(request))
        return JsonReply(items_json(cast("list[JsonObject]", items), query))

    async def _read(self, request: Request, shape: type[ShapeType]) -> tuple[ShapeType, Report]:
        return await read_request(request, shape, WORDING, strict=self._services.settings.strict)

    async def _record(self, request: Request) -> Record:
        id_: str = request.path_params["id"]
        record = await self._background.found(id_, owner_of(request))
        if record is None:
            raise NotFound(f"Response with id '{id_[:200]}' not found.")
        return record


def _stream(
    events: AsyncGenerator[ResponseEvent | bytes, None] | AsyncGenerator[ResponseEvent, None],
    number: Callable[[], int] | None = None,
) -> EventStream:
    """`number`: of the event that an error beside the response would be. Where none is given, the last event's: it goes
    on elsewhere, behind that.
    """
    last = -1

    async def frames() -> AsyncGenerator[bytes, None]:
        nonlocal last
        async with aclosing(events):
            async for told in events:
                if isinstance(told, bytes):
                    yield told
                else:
                    last = number_of(told)
                    yield sse(told)

    def fault(error: PunaError) -> bytes:
        return sse(error_told(error, max(last, 0) if number is None else number()))

    return EventStream(frames(), replace(SSE, error=fault))
