"""Routes of responses. A handler reads and checks a request, asks `Inference` and the state, and frames what comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from puna.errors import InvalidRequest, NotFound, Unsupported
from puna.lane import in_lane
from puna.model.reference import Reference
from puna.server.body import JsonReply, beside
from puna.server.contract.converted import Converted
from puna.server.contract.reading import ShapeType, read_request
from puna.server.contract.report import Report
from puna.server.kept_files import KeptText, file_bytes, file_text
from puna.server.media import MAX_IMAGE, check_image
from puna.server.openai.paging import items_json, read_query
from puna.server.openai.remote import remote_media
from puna.server.openai.wording import WORDING
from puna.server.owner import owner_of
from puna.server.responses.background import BackgroundResponses, number_of
from puna.server.responses.bodies import CompactBody, InputTokensBody, ResponseBody
from puna.server.responses.compaction import compacted
from puna.server.responses.convert import check_body, check_past, to_compacting, to_counted, to_response_chat
from puna.server.responses.ids import ResponseIds
from puna.server.responses.include import NAMES, flag, included, number
from puna.server.responses.objects import ENCRYPTED, conversation_id, draft, listed_input, with_included
from puna.server.responses.past import MANY, items_before, response_input, with_input
from puna.server.responses.pieces import Brought
from puna.server.responses.telling import Manner, ResponseEvent, Telling, error_told, sse
from puna.server.responses.tools import namespaces
from puna.server.responses.turns import Placed, files_of, remote_images_of, take_time
from puna.server.responses.work import Memory, ResponseWork
from puna.server.routing import dialect_route
from puna.server.services import Services
from puna.server.streaming import SSE, EventStream, unless_gone
from puna.state.records import Record
from puna.types import DEFAULT_OPTIONS, ChatRequest, JsonObject, Options


def response_routes(services: Services) -> list[Route]:
    api = _Responses(services)
    return [
        dialect_route("/v1/responses", {"POST": api.create}),
        dialect_route("/v1/responses/input_tokens", {"POST": api.input_tokens}),
        dialect_route("/v1/responses/compact", {"POST": api.compact}),
        dialect_route("/v1/responses/{id}", {"GET": api.retrieve, "DELETE": api.delete}),
        dialect_route("/v1/responses/{id}/cancel", {"POST": api.cancel}),
        dialect_route("/v1/responses/{id}/input_items", {"GET": api.input_items}),
    ]


class _Responses:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._state = services.state
        self._background = BackgroundResponses(services.state, services.ending)

    # ------------------------------------------------------------------------------------------------------ create

    async def create(self, request: Request) -> Response | EventStream:
        body, report = await self._read(request, ResponseBody)
        check_body(body)
        for name in ("store", "background"):
            if getattr(body, name) and not self._state.kept:
                raise Unsupported(f"'{name}': this server keeps nothing (PUNA_STATE=off).", param=name)
        work = await self._work(request, body, report)
        if body.background:
            running = await self._background.start(work)
            if body.stream:
                return _stream(running.follow(-1), work.telling.number)
            return JsonReply(work.telling.response)
        if body.stream:
            return _stream(work.told(), work.telling.number)
        return JsonReply(await unless_gone(request.receive, work.whole()))

    async def _work(self, request: Request, body: ResponseBody, report: Report) -> ResponseWork:
        wanted = await self._wanted(
            request, body, report, lambda items, brought: to_response_chat(body, items, brought)
        )
        ids, created = ResponseIds(), time.time()
        stored = self._state.kept if body.store is None else body.store
        said = draft(body, ids, int(created), await self._effective(wanted), stored=stored)
        memory = Memory(
            state=self._state,
            owner=owner_of(request),
            created=created,
            input=listed_input(body.input, ids),
            previous=body.previous_response_id or "",
            response=stored,
            conversation=conversation_id(body.conversation),
        )
        answer = self._services.thoughts.chat(self._services.inference, request, wanted)
        return ResponseWork(Telling(said, ids, _manner(body)), ids, answer, report, memory)

    async def _wanted(
        self,
        request: Request,
        body: ResponseBody | InputTokensBody | CompactBody,
        report: Report,
        convert: Callable[[Sequence[Placed], Brought], Converted[ChatRequest]],
    ) -> ChatRequest:
        """What is asked of the model, with all that came before."""
        check_past(body)
        owner = owner_of(request)
        items = await with_input(self._state, body.input, await items_before(self._state, body, owner), owner)
        brought = await self._brought(request, body.model, items)
        slow = len(items) > MANY or await beside(request, lambda: take_time(items))
        return report.take(await beside(request, lambda: convert(items, brought), slow=slow))

    async def _brought(self, request: Request, model: str, items: Sequence[Placed]) -> Brought:
        """What is to be got from elsewhere."""
        remote, named = await beside(request, lambda: (remote_images_of(items), files_of(items)))
        images, texts = await remote_media(self._services, model, remote), dict[str, KeptText]()
        owner = owner_of(request)
        for file in named:
            if file.image:
                _, data = await file_bytes(self._state, owner, file.id, file.path, most=MAX_IMAGE)
                images[file.id] = await in_lane(partial(check_image, data, file.path))
            else:
                texts[file.id] = await file_text(self._state, owner, file.id, file.path)
        return Brought(images, texts)

    async def _effective(self, wanted: ChatRequest) -> Options:
        """The options that count: the request's, over the model's, over the server's."""
        reference, library = Reference.parse(wanted.model), self._services.library
        model = library.known(reference)
        if model is None:
            model = await asyncio.to_thread(library.resolve, reference)
        return wanted.options.over(model.options).over(DEFAULT_OPTIONS)

    async def input_tokens(self, request: Request) -> Response:
        body, report = await self._read(request, InputTokensBody)
        wanted = await self._wanted(request, body, report, partial(to_counted, body))
        with report.naming():
            count = await unless_gone(request.receive, self._services.inference.count(wanted))
        return JsonReply({"object": "response.input_tokens", "input_tokens": count})

    async def compact(self, request: Request) -> Response:
        body, report = await self._read(request, CompactBody)
        wanted = await self._wanted(request, body, report, partial(to_compacting, body))
        ids = ResponseIds()
        answer = self._services.inference.chat(wanted)
        return JsonReply(await unless_gone(request.receive, compacted(answer, report, ids)))

    # ------------------------------------------------------------------------------------------------------ stored

    async def retrieve(self, request: Request) -> Response | EventStream:
        record = await self._record(request)
        include, after = included(request), number(request, "starting_after")
        known = {*NAMES, "stream", "starting_after", "include_obfuscation"}
        Report(request.state, [name for name in request.query_params if name not in known])
        if flag(request, "include_obfuscation"):
            Report(request.state, ["include_obfuscation"])
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
        request.state.response_headers.update(told)
        return JsonReply(response)

    async def _follow(self, record: Record, after: int) -> EventStream:
        running = self._background.running(record.id, record.owner)
        if running is not None:
            return _stream(running.follow(after), running.work.telling.number)
        events = await self._background.events(await self._background.settled(record))
        if not events:
            raise Unsupported(
                "Only a response that was made in the background can be followed: it keeps its events.", param="stream"
            )

        async def again() -> AsyncGenerator[ResponseEvent, None]:
            for told in events:
                if number_of(told) > after:
                    yield told

        return _stream(again(), lambda: number_of(events[-1]) + 1)

    async def delete(self, request: Request) -> Response:
        record = await self._record(request)
        await self._background.forget(record.id, record.owner)
        return JsonReply({"id": record.id, "object": "response", "deleted": True})

    async def cancel(self, request: Request) -> Response:
        record = await self._record(request)
        running = self._background.running(record.id, record.owner)
        if running is not None:
            await self._background.cancel(running)
            return JsonReply(running.work.telling.response)
        response = cast("JsonObject", (await self._background.settled(record)).body["response"])
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
        record = await self._state.get("response", id_, owner_of(request))
        if record is None:
            raise NotFound(f"Response with id '{id_[:200]}' not found.")
        return record


def _manner(body: ResponseBody) -> Manner:
    include, reasoning = body.include or [], body.reasoning
    return Manner(
        summary=reasoning is not None and (reasoning.summary or reasoning.generate_summary) is not None,
        sealed=ENCRYPTED in include,
        logprobs="message.output_text.logprobs" in include or bool(body.top_logprobs),
        obfuscated=body.stream_options is not None and bool(body.stream_options.include_obfuscation),
        background=bool(body.background),
        namespaces=namespaces(body),
    )


def _stream(
    events: AsyncGenerator[ResponseEvent | bytes, None] | AsyncGenerator[ResponseEvent, None], number: Callable[[], int]
) -> EventStream:
    """`number`: of the event that an error beside the response would be."""

    async def frames() -> AsyncGenerator[bytes, None]:
        async with aclosing(events):
            async for told in events:
                yield told if isinstance(told, bytes) else sse(told)

    return EventStream(frames(), replace(SSE, error=lambda error: sse(error_told(error, number()))))
