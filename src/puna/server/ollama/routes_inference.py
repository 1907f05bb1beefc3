"""`/api/generate`, `/api/chat`, `/api/embed`, `/api/embeddings`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from puna.errors import ModelNotFound, NotFound
from puna.model.name import Name
from puna.server.body import JsonReply, dump
from puna.server.fields import IGNORED, field_list
from puna.server.ollama.convert import (
    Turn,
    chat_request,
    embed_request,
    generate_request,
    idle_object,
    merged,
)
from puna.server.ollama.exchange import missing_as, read_body, refuse_unknown, report, required
from puna.server.ollama.schema import ChatBody, EmbedBody, EmbeddingsBody, GenerateBody
from puna.server.services import Services
from puna.server.streaming import NDJSON, EventStream, unless_gone
from puna.types import ChatRequest, CompletionRequest, JsonObject, Options


class InferenceRoutes:
    def __init__(self, services: Services) -> None:
        self._inference = services.inference
        self._library = services.library
        self._strict = services.settings.strict

    async def generate(self, request: Request) -> ASGIApp:
        body = await read_body(request, GenerateBody)
        refuse_unknown(request, body, strict=self._strict)
        if not body.model:
            raise NotFound("model '' not found", param="model", code="model_not_found")
        # Images take a while to read.
        converted = await asyncio.to_thread(generate_request, body) if body.images else generate_request(body)
        report(request, converted.ignored)
        if not body.prompt and not body.suffix and not body.images:
            return await self._idle(request, converted.request, chat=False)
        turn = Turn(body.model, chat=False, keep_context=isinstance(converted.request, ChatRequest))
        return await self._answer(request, converted.request, turn, converted.ignored, stream=body.stream)

    async def chat(self, request: Request) -> ASGIApp:
        body = await read_body(request, ChatBody)
        refuse_unknown(request, body, strict=self._strict)
        required(body.model)
        seen = any(message.images for message in body.messages)
        converted = await asyncio.to_thread(chat_request, body) if seen else chat_request(body)
        report(request, converted.ignored)
        if not body.messages:
            return await self._idle(request, converted.request, chat=True)
        turn = Turn(body.model, chat=True)
        return await self._answer(request, converted.request, turn, converted.ignored, stream=body.stream)

    async def embed(self, request: Request) -> Response:
        body = await read_body(request, EmbedBody)
        refuse_unknown(request, body, strict=self._strict)
        if not body.model:
            raise NotFound("model '' not found", param="model", code="model_not_found")
        converted = embed_request(body)
        report(request, converted.ignored)
        wanted = converted.request
        with missing_as(f'model "{body.model}" not found, try pulling it first'):
            if not wanted.inputs:
                load = self._inference.load(wanted.model, wanted.options, wanted.keep_alive)
                await unless_gone(request.receive, load)
                return JsonReply({"model": body.model, "embeddings": []})
            result = await unless_gone(request.receive, self._inference.embed(wanted))
        reply: JsonObject = {
            "model": body.model,
            "embeddings": [list(vector) for vector in result.vectors],
            "total_duration": result.timings.total,
            "load_duration": result.timings.load,
            "prompt_eval_count": result.prompt_tokens,
        }
        if result.truncated:
            reply["truncated"] = list(result.truncated)
        headers = {"x-puna-truncated": str(len(result.truncated))} if result.truncated else {}
        return JsonReply(reply, headers=headers)

    async def embeddings(self, request: Request) -> Response:
        """The older form: one prompt, one vector."""
        body = await read_body(request, EmbeddingsBody)
        refuse_unknown(request, body, strict=self._strict)
        required(body.model)
        whole = EmbedBody(model=body.model, input=body.prompt, keep_alive=body.keep_alive, options=body.options)
        converted = embed_request(whole)
        report(request, (*body.unknown, *converted.ignored))
        wanted = converted.request
        with missing_as(f'model "{body.model}" not found, try pulling it first'):
            if not wanted.inputs:
                load = self._inference.load(wanted.model, wanted.options, wanted.keep_alive)
                await unless_gone(request.receive, load)
                return JsonReply({"embedding": []})
            result = await unless_gone(request.receive, self._inference.embed(wanted))
        headers = {"x-puna-truncated": str(len(result.truncated))} if result.truncated else {}
        return JsonReply({"embedding": list(result.vectors[0])}, headers=headers)

    # ------------------------------------------------------------------------------------------------------ answering

    async def _idle(self, request: Request, wanted: ChatRequest | CompletionRequest, *, chat: bool) -> Response:
        """Without a prompt: load the model, or unload it when it is to be kept for no time."""
        with _as_sent(wanted.model):
            if wanted.keep_alive == 0:
                await asyncio.to_thread(self._library.resolve, Name.parse(wanted.model))
                await self._inference.unload(wanted.model)
                return JsonReply(idle_object(wanted.model, "unload", chat=chat))
            load = self._inference.load(wanted.model, wanted.options, wanted.keep_alive)
            await unless_gone(request.receive, load)
        return JsonReply(idle_object(wanted.model, "load", chat=chat))

    async def _answer(
        self,
        request: Request,
        wanted: ChatRequest | CompletionRequest,
        turn: Turn,
        ignored: tuple[str, ...],
        *,
        stream: bool,
    ) -> ASGIApp:
        objects = self._objects(wanted, turn)
        if stream:
            return EventStream(_lines(objects), NDJSON, headers=lambda: _report(turn, ignored, wanted.options))
        whole = merged(await unless_gone(request.receive, _all(objects)))
        return JsonReply(whole, headers=_report(turn, ignored, wanted.options))

    async def _objects(self, wanted: ChatRequest | CompletionRequest, turn: Turn) -> AsyncGenerator[JsonObject, None]:
        inference = self._inference
        answer = inference.chat(wanted) if isinstance(wanted, ChatRequest) else inference.complete(wanted)
        with _as_sent(wanted.model):
            async with answer as events:
                async for event in events:
                    item = turn.object_of(event)
                    if item is not None:
                        yield item


async def _lines(objects: AsyncGenerator[JsonObject, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(objects):
        async for item in objects:
            yield dump(item) + b"\n"


async def _all(objects: AsyncGenerator[JsonObject, None]) -> list[JsonObject]:
    async with aclosing(objects):
        return [item async for item in objects]


def _report(turn: Turn, ignored: tuple[str, ...], options: Options) -> Mapping[str, str]:
    """Headers that say what of the request had no effect, or less than was asked."""
    started = turn.started
    if started is None:
        return {}
    headers = {}
    if names := (*ignored, *started.ignored):
        headers[IGNORED] = field_list(names)
    if started.dropped_messages:
        headers["x-puna-truncated"] = str(started.dropped_messages)
    if options.seed is not None and options.seed >= 0:
        headers["x-puna-seed"] = "exact" if started.seed_exact else "best-effort"
    return headers


@contextmanager
def _as_sent(model: str) -> Iterator[None]:
    """A missing model is named as the client wrote it."""
    try:
        yield
    except ModelNotFound as error:
        raise ModelNotFound(model) from error
