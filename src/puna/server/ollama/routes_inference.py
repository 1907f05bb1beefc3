"""`/api/generate`, `/api/chat`, `/api/embed`, `/api/embeddings`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from puna.errors import ModelNotFound, NotFound
from puna.model.reference import Reference
from puna.server.body import JsonReply, beside, reply_beside
from puna.server.contract.report import Report
from puna.server.ollama.bodies import ChatBody, EmbedBody, EmbeddingsBody, GenerateBody
from puna.server.ollama.convert import loads_only, to_chat, to_embed, to_embed_one, to_generate
from puna.server.ollama.exchange import missing_as, read_body, required
from puna.server.ollama.objects import Turn, embeddings_object, idle_object, merged
from puna.server.services import Services
from puna.server.streaming import NDJSON, EventStream, unless_gone
from puna.types import ChatRequest, CompletionRequest, Embeddings, EmbedRequest, Event, JsonObject, Started

Form = TypeVar("Form")


class InferenceRoutes:
    def __init__(self, services: Services) -> None:
        self._inference = services.inference
        self._thoughts = services.thoughts
        self._library = services.library
        self._strict = services.settings.strict

    async def generate(self, request: Request) -> ASGIApp:
        body, report = await read_body(request, GenerateBody, strict=self._strict)
        if not body.model:
            raise NotFound("model '' not found", param="model", code="model_not_found")
        # Images take a while to read.
        converted = await beside(request, lambda: to_generate(body), slow=bool(body.images))
        wanted = report.take(converted)
        if loads_only(body):
            return await self._idle(request, wanted, report, chat=False)
        turn = Turn(body.model, chat=False, keep_context=isinstance(wanted, ChatRequest))
        return await self._answer(request, wanted, turn, report, stream=body.stream)

    async def chat(self, request: Request) -> ASGIApp:
        body, report = await read_body(request, ChatBody, strict=self._strict)
        required(body.model)
        seen = await beside(request, lambda: any(message.images for message in body.messages))
        wanted = report.take(await beside(request, lambda: to_chat(body), slow=seen))
        if loads_only(body):
            return await self._idle(request, wanted, report, chat=True)
        return await self._answer(request, wanted, Turn(body.model, chat=True), report, stream=body.stream)

    async def embed(self, request: Request) -> Response:
        body, report = await read_body(request, EmbedBody, strict=self._strict)
        if not body.model:
            raise NotFound("model '' not found", param="model", code="model_not_found")
        result = await self._embedded(request, report.take(await beside(request, lambda: to_embed(body))), report)
        if result is None:
            return JsonReply({"model": body.model, "embeddings": []})
        return await reply_beside(lambda: embeddings_object(body.model, result), result.numbers)

    async def embeddings(self, request: Request) -> Response:
        """The older form: one prompt, one vector."""
        body, report = await read_body(request, EmbeddingsBody, strict=self._strict)
        required(body.model)
        result = await self._embedded(request, report.take(await beside(request, lambda: to_embed_one(body))), report)
        return JsonReply({"embedding": [] if result is None else list(result.vectors[0])})

    # ------------------------------------------------------------------------------------------------------ answering

    async def _embedded(self, request: Request, wanted: EmbedRequest, report: Report) -> Embeddings | None:
        """The vectors; None without inputs: the model is loaded."""
        with report.naming(), missing_as(f'model "{wanted.model}" not found, try pulling it first'):
            if not wanted.inputs:
                load = self._inference.load(wanted.model, wanted.options, wanted.keep_alive)
                report.loaded(await unless_gone(request.receive, load))
                return None
            result = await unless_gone(request.receive, self._inference.embed(wanted))
        report.embedded(result)
        return result

    async def _idle(
        self, request: Request, wanted: ChatRequest | CompletionRequest, report: Report, *, chat: bool
    ) -> Response:
        """Without a prompt: load the model, or unload it when it is to be kept for no time."""
        with report.naming(), _as_sent(wanted.model):
            if wanted.keep_alive == 0:
                await asyncio.to_thread(self._library.resolve, Reference.parse(wanted.model))
                await self._inference.unload(wanted.model)
                report.unloaded(wanted.options)
                return JsonReply(idle_object(wanted.model, "unload", chat=chat))
            load = self._inference.load(wanted.model, wanted.options, wanted.keep_alive)
            report.loaded(await unless_gone(request.receive, load))
        return JsonReply(idle_object(wanted.model, "load", chat=chat))

    async def _answer(
        self,
        request: Request,
        wanted: ChatRequest | CompletionRequest,
        turn: Turn,
        report: Report,
        *,
        stream: bool,
    ) -> ASGIApp:
        if stream:
            return EventStream(self._told(request, wanted, report, turn.line_of), NDJSON)
        objects = self._told(request, wanted, report, turn.object_of)
        return JsonReply(merged(await unless_gone(request.receive, _all(objects))))

    async def _told(
        self,
        request: Request,
        wanted: ChatRequest | CompletionRequest,
        report: Report,
        form: Callable[[Event], Form | None],
    ) -> AsyncGenerator[Form, None]:
        """The events that tell something, each in its form."""
        if isinstance(wanted, ChatRequest):
            answer = self._thoughts.chat(self._inference, request, wanted)
        else:
            answer = self._inference.complete(wanted)
        with _as_sent(wanted.model):
            async with report.reading(answer) as events:
                async for event in events:
                    if isinstance(event, Started):
                        report.start(event)
                    item = form(event)
                    if item is not None:
                        yield item


async def _all(objects: AsyncGenerator[JsonObject, None]) -> list[JsonObject]:
    async with aclosing(objects):
        return [item async for item in objects]


@contextmanager
def _as_sent(model: str) -> Iterator[None]:
    """A missing model is named as the client wrote it."""
    try:
        yield
    except ModelNotFound as error:
        raise ModelNotFound(model, near=error.near, there=error.there) from error
