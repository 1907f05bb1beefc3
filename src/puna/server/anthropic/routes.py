"""Anthropic's routes. A handler reads and checks a body, asks `Inference`, and frames what comes; nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from puna.model.listed import Listed
from puna.model.reference import Reference
from puna.server.anthropic import answer, convert, models
from puna.server.anthropic.batches import MessageBatches
from puna.server.anthropic.blocks import HeldElsewhere
from puna.server.anthropic.bodies import CountBody, MessagesBody
from puna.server.anthropic.files import MessageFiles
from puna.server.anthropic.heads import of_its_version, without_effect
from puna.server.anthropic.messages import ConversationTurn, elsewhere, has_media
from puna.server.anthropic.paging import read_page
from puna.server.anthropic.wording import WORDING
from puna.server.batch.work import BatchWork
from puna.server.body import JsonReply, beside
from puna.server.contract.reading import ShapeType, read_request
from puna.server.contract.report import Report
from puna.server.errors import speaks_anthropic
from puna.server.kept_files import file_bytes, file_text
from puna.server.media import MAX_IMAGE
from puna.server.openai.remote import remote_media, remote_texts
from puna.server.owner import owner_of
from puna.server.routing import dialect_route
from puna.server.services import Services
from puna.server.streaming import EventStream, unless_gone


def routes(services: Services, work: BatchWork) -> list[Route]:
    """Those of paths that OpenAI has too take only what Anthropic's clients ask: they stand before OpenAI's."""
    api, batches, files = _Api(services), MessageBatches(services, work), MessageFiles(services)
    return [
        dialect_route("/v1/messages/batches", {"GET": batches.list, "POST": batches.create}),
        dialect_route("/v1/messages/batches/{id}", {"GET": batches.retrieve, "DELETE": batches.delete}),
        dialect_route("/v1/messages/batches/{id}/cancel", {"POST": batches.cancel}),
        dialect_route("/v1/messages/batches/{id}/results", {"GET": batches.results}),
        Route("/v1/messages", api.messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", api.count, methods=["POST"]),
        _Asked("/v1/files", files.list, methods=["GET"]),
        _Asked("/v1/files", files.upload, methods=["POST"]),
        _Asked("/v1/files/{id}", files.retrieve, methods=["GET"]),
        _Asked("/v1/files/{id}", files.delete, methods=["DELETE"]),
        _Asked("/v1/files/{id}/content", files.download, methods=["GET"]),
        _Asked("/v1/models", api.models, methods=["GET"]),
        _Asked("/v1/models/{id:path}", api.model, methods=["GET"]),
    ]


class _Asked(Route):
    """A route for Anthropic's clients alone."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if not speaks_anthropic(scope["path"], Headers(scope=scope)):
            return Match.NONE, {}
        match, found = super().matches(scope)
        # Another method than its own is for OpenAI's route to answer.
        return (match, found) if match is Match.FULL else (Match.NONE, {})


class _Api:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._settings = services.settings
        self._library = services.library
        self._scheduler = services.scheduler
        self._inference = services.inference

    async def messages(self, request: Request) -> Response | EventStream:
        body, report = await self._read(request, MessagesBody)
        fetched = await self._fetch(request, body.model, body.messages)
        slow = await beside(request, lambda: has_media(body.messages))
        converted = await beside(request, lambda: convert.to_chat(body, fetched), slow=slow)
        wanted = report.take(of_its_version(request.headers, body, converted))
        style = await beside(request, lambda: convert.Style.of(body))
        arriving = self._services.thoughts.chat(self._inference, request, wanted)
        if body.stream:
            return EventStream(answer.stream(arriving, style, report), answer.framing(request.state.request_id))
        return JsonReply(await unless_gone(request.receive, answer.gather(arriving, style, report)))

    async def count(self, request: Request) -> Response:
        body, report = await self._read(request, CountBody)
        fetched = await self._fetch(request, body.model, body.messages)
        slow = await beside(request, lambda: has_media(body.messages))
        wanted = report.take(await beside(request, lambda: convert.to_counted_chat(body, fetched), slow=slow))
        with report.naming():
            counted = await unless_gone(request.receive, self._inference.counted(wanted))
        report.counted(counted)
        return JsonReply({"input_tokens": counted.count})

    async def models(self, request: Request) -> Response:
        found = await asyncio.to_thread(self._library.listed)
        shown = [
            models.model_json(one, one.name.short, self._scheduler.context_now(one.name, one.label)) for one in found
        ]
        return JsonReply(models.page_of(shown, read_page(request)))

    async def model(self, request: Request) -> Response:
        id_: str = request.path_params["id"]
        found = Listed.of(await asyncio.to_thread(self._library.resolve, Reference.parse(id_)))
        return JsonReply(models.model_json(found, id_, self._scheduler.context_now(found.name, found.label)))

    # ------------------------------------------------------------------------------------------------------ shared

    async def _read(self, request: Request, shape: type[ShapeType]) -> tuple[ShapeType, Report]:
        body, report = await read_request(request, shape, WORDING, strict=self._settings.strict)
        report.ignore(without_effect(request.headers))
        return body, report

    async def _fetch(self, request: Request, model: str, conversation: Sequence[ConversationTurn]) -> HeldElsewhere:
        """What the conversation speaks of and others hold."""
        wanted = await beside(request, lambda: elsewhere(conversation))
        images = await remote_media(self._services, model, wanted.images)
        state, owner = self._services.state, owner_of(request)
        for path, id_ in wanted.image_files:
            _, images[id_] = await file_bytes(state, owner, id_, path, most=MAX_IMAGE)
        texts = {id_: await file_text(state, owner, id_, path) for path, id_ in wanted.text_files}
        texts |= await remote_texts(self._services, wanted.documents)
        return HeldElsewhere(images, texts)
