"""OpenAI's routes. A handler reads and checks a body, asks `Inference`, and frames what comes; nothing else."""

from __future__ import annotations

import asyncio
import base64
import struct

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from puna.errors import InvalidRequest, Unsupported
from puna.lane import while_decoding
from puna.model.capabilities import Capability
from puna.model.listed import Listed
from puna.model.model import Model
from puna.model.reference import Reference
from puna.server.body import JsonReply, beside, read_object, reply_beside
from puna.server.contract.converted import Converted
from puna.server.contract.forms import read_form
from puna.server.contract.reading import ShapeType, read_parameters, read_request
from puna.server.contract.report import Report
from puna.server.kept_files import file_text
from puna.server.multipart import FormBounds, whole_file
from puna.server.openai import audio, chat, convert, legacy
from puna.server.openai.audio import TranscriptionForm, TranslationForm
from puna.server.openai.bodies import (
    ChatCompletionBody,
    CompletionBody,
    DetokenizeBody,
    EmbeddingBody,
    TokenizeBody,
)
from puna.server.openai.decisions import DecisionBody, decisions_json, to_decisions
from puna.server.openai.messages import ConversationMessage, has_media, kept_files, remote_images, with_files
from puna.server.openai.remote import remote_media
from puna.server.openai.rerank import (
    RerankBody,
    ScoreBody,
    TextsRankBody,
    rerank_json,
    scores_json,
    texts_rank_json,
    to_rank,
    to_scores,
    to_text_rank,
)
from puna.server.openai.stored import Keeping, StoredChats, unkept
from puna.server.openai.wording import WORDING
from puna.server.owner import owner_of
from puna.server.routing import dialect_route
from puna.server.services import Services
from puna.server.sounds import MAX_SOUND, check_sound
from puna.server.streaming import SSE, EventStream, unless_gone
from puna.types import Embeddings, JsonObject, JsonValue, Ranking, RankRequest


def routes(services: Services) -> list[Route]:
    api, stored = _Api(services), StoredChats(services)
    return [
        dialect_route("/v1/chat/completions", {"GET": stored.list, "POST": api.chat}),
        dialect_route("/v1/chat/completions/{id}", {"GET": stored.get, "POST": stored.update, "DELETE": stored.delete}),
        dialect_route("/v1/chat/completions/{id}/messages", {"GET": stored.messages}),
        dialect_route("/v1/completions", {"POST": api.complete}),
        dialect_route("/v1/embeddings", {"POST": api.embed}),
        dialect_route("/v1/audio/transcriptions", {"POST": api.transcribe}),
        dialect_route("/v1/audio/translations", {"POST": api.translate}),
        dialect_route("/v1/decisions", {"POST": api.decide}),
        dialect_route("/v1/rerank", {"POST": api.rerank}),
        dialect_route("/v2/rerank", {"POST": api.rerank}),
        dialect_route("/rerank", {"POST": api.rank_texts}),
        dialect_route("/v1/score", {"POST": api.score}),
        dialect_route("/score", {"POST": api.score}),
        dialect_route("/v1/models", {"GET": api.models}),
        dialect_route("/v1/models/{id:path}", {"GET": api.model, "DELETE": api.delete}),
        dialect_route("/tokenize", {"POST": api.tokenize}),
        dialect_route("/v1/tokenize", {"POST": api.tokenize}),
        dialect_route("/tokenizer_info", {"GET": api.tokenizer_info}),
        dialect_route("/v1/tokenizer_info", {"GET": api.tokenizer_info}),
        dialect_route("/detokenize", {"POST": api.detokenize}),
        dialect_route("/v1/detokenize", {"POST": api.detokenize}),
    ]


class _Api:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._settings = services.settings
        self._library = services.library
        self._scheduler = services.scheduler
        self._inference = services.inference

    # ---------------------------------------------------------------------------------------------------- generate

    async def chat(self, request: Request) -> Response | EventStream:
        body, report = await self._read(request, ChatCompletionBody)
        body = body.model_copy(update={"messages": await self._with_files(request, body.messages)})
        images = await self._fetch_images(request, body.model, body.messages)
        slow = await beside(request, lambda: has_media(body.messages))
        wanted = report.take(await beside(request, lambda: convert.to_chat(body, images), slow=slow))
        style = chat.ChatStyle.of(body)
        keeping = await Keeping.of(self._services.state, request, body)
        report.ignore(unkept(body, keeping))
        answer = self._services.thoughts.chat(self._inference, request, wanted)
        if body.stream and keeping is None:
            return EventStream(chat.stream(answer, style, wanted.n, report), SSE)
        gathered = chat.Gathered(style, wanted.n)
        if body.stream and keeping is not None:
            kept = keeping.streamed(answer, gathered)
            return EventStream(chat.stream(kept, style, wanted.n, report, gathered), SSE)
        whole = await unless_gone(request.receive, chat.gather(answer, gathered, report))
        return JsonReply(whole if keeping is None else await keeping.put(whole))

    async def complete(self, request: Request) -> Response | EventStream:
        body, report = await self._read(request, CompletionBody)
        wanted = report.take(await beside(request, lambda: convert.to_completion(body)))
        style = legacy.CompletionStyle.of(body, len(wanted.prompts))
        answer = self._inference.complete(wanted)
        if body.stream:
            return EventStream(legacy.stream(answer, style, report), SSE)
        return JsonReply(await unless_gone(request.receive, legacy.gather(answer, style, report)))

    async def embed(self, request: Request) -> Response:
        body, report = await self._read(request, EmbeddingBody)
        wanted = report.take(await beside(request, lambda: convert.to_embed(body)))
        with report.naming():
            embeddings = await unless_gone(request.receive, self._inference.embed(wanted))
        report.embedded(embeddings)
        base64_ = body.encoding_format == "base64"
        return await reply_beside(lambda: embeddings_json(embeddings, body.model, base64_=base64_), embeddings.numbers)

    async def decide(self, request: Request) -> Response:
        body, report = await self._read(request, DecisionBody)
        wanted = report.take(await beside(request, lambda: to_decisions(body)))
        with report.naming():
            decisions = await unless_gone(request.receive, self._inference.decide(wanted))
        report.decided(decisions)
        return JsonReply(decisions_json(body, decisions))

    async def transcribe(self, request: Request) -> Response | EventStream:
        return await self._hear(request, TranscriptionForm)

    async def translate(self, request: Request) -> Response | EventStream:
        return await self._hear(request, TranslationForm)

    async def _hear(
        self, request: Request, shape: type[TranscriptionForm] | type[TranslationForm]
    ) -> Response | EventStream:
        bounds, strict = FormBounds(file=MAX_SOUND), self._settings.strict
        form, files, report = await read_form(request, shape, WORDING, strict=strict, bounds=bounds, keep=whole_file)
        if "file" not in files:
            raise InvalidRequest("Missing required parameter: 'file'.", param="file", code="missing_required_parameter")
        model = await self._resolve(form.model)
        if Capability.AUDIO not in model.capabilities:
            raise Unsupported(
                f'"{model.name.short}" does not support audio: {model.unused or "it has no audio projector"}',
                param="model",
            )
        sound = await while_decoding(lambda: check_sound(files["file"], "file"))
        wanted = report.take(audio.to_sound_chat(form, sound))
        answer = self._inference.chat(wanted)
        if isinstance(form, TranscriptionForm) and form.stream:
            return EventStream(audio.stream(answer, form, report), SSE)
        return await unless_gone(request.receive, audio.heard(answer, form, sound, report))

    async def rerank(self, request: Request) -> Response:
        body, report = await self._read(request, RerankBody)
        ranking = await self._rank(request, report, await beside(request, lambda: to_rank(body)))
        return await reply_beside(lambda: rerank_json(body, ranking, chat.new_id("rerank-")), len(body.documents))

    async def rank_texts(self, request: Request) -> Response:
        """TEI's form; with `documents`, which that has not, the other."""
        if "documents" in await read_object(request):
            return await self.rerank(request)
        body, report = await self._read(request, TextsRankBody)
        model = await self._named(body.model)
        ranking = await self._rank(request, report, await beside(request, lambda: to_text_rank(body, model)))
        return await reply_beside(lambda: texts_rank_json(body, ranking), len(body.texts))

    async def score(self, request: Request) -> Response:
        body, report = await self._read(request, ScoreBody)
        wanted = await beside(request, lambda: to_scores(body))
        rankings = [await self._rank(request, report, one) for one in wanted]
        return JsonReply(scores_json(body, rankings, chat.new_id("score-")))

    async def _rank(self, request: Request, report: Report, converted: Converted[RankRequest]) -> Ranking:
        wanted = report.take(converted)
        with report.naming():
            ranking = await unless_gone(request.receive, self._inference.rank(wanted))
        report.ranked(ranking)
        return ranking

    # ------------------------------------------------------------------------------------------------------ models

    async def models(self, request: Request) -> Response:
        read_parameters(request, ())
        found = await asyncio.to_thread(self._library.listed)
        return JsonReply({"object": "list", "data": [self._shown(model, model.name.short) for model in found]})

    async def model(self, request: Request) -> Response:
        read_parameters(request, ())
        id_: str = request.path_params["id"]
        return JsonReply(self._shown(Listed.of(await self._resolve(id_)), id_))

    async def delete(self, request: Request) -> Response:
        id_: str = request.path_params["id"]
        wanted = Reference.parse(id_)
        await asyncio.to_thread(self._library.expect, wanted)
        await self._scheduler.unload(wanted.name)
        await asyncio.to_thread(self._library.delete, wanted)
        return JsonReply({"id": id_, "object": "model", "deleted": True})

    # ------------------------------------------------------------------------------------------------------ tokens

    async def tokenize(self, request: Request) -> Response:
        body, report = await self._read(request, TokenizeBody)
        name = await self._named(body.model)
        if [body.prompt, body.content, body.messages].count(None) != 2:
            raise InvalidRequest(
                "Send one of 'prompt', 'content' and 'messages'.", param="prompt", code="missing_required_parameter"
            )
        report.ignore(convert.of_another_form(body))
        special = body.parse_special is not False
        if body.content is not None:
            tokens = await self._inference.tokenize(name, body.content, special=special, bos=bool(body.add_special))
            return await reply_beside(lambda: {"tokens": [*tokens]}, len(tokens))
        shown: list[JsonValue] | None
        if body.prompt is not None:
            bos = body.add_special_tokens is not False
            tokens = await self._inference.tokenize(name, body.prompt, special=special, bos=bos)
            count, shown = len(tokens), [*tokens]
        else:
            body = body.model_copy(update={"messages": await self._with_files(request, body.messages or [])})
            images = await self._fetch_images(request, name, body.messages or [])
            wanted = report.take(await beside(request, lambda: convert.to_counted_chat(body, name, images)))
            with report.naming():
                prompt = await self._inference.counted(wanted)
            report.counted(prompt)
            count, shown = prompt.count, None if prompt.tokens is None else [*prompt.tokens]
        context = await self._context(name)
        return await reply_beside(lambda: {"count": count, "tokens": shown, "max_model_len": context}, count)

    async def tokenizer_info(self, request: Request) -> Response:
        """vLLM's, from the model's file. `model` of the URL may be absent when only one is loaded or stored."""
        said = request.query_params
        Report(request.state, [name for name in said if name != "model"])
        return JsonReply(tokenizer_json(await self._resolve(await self._named(said.get("model") or None))))

    async def detokenize(self, request: Request) -> Response:
        body, _ = await self._read(request, DetokenizeBody)
        text = await self._inference.detokenize(await self._named(body.model), body.tokens)
        # vLLM's clients read `prompt`, llama.cpp's `content`.
        return await reply_beside(lambda: {"prompt": text, "content": text}, len(text))

    # ------------------------------------------------------------------------------------------------------ shared

    async def _read(self, request: Request, shape: type[ShapeType]) -> tuple[ShapeType, Report]:
        return await read_request(request, shape, WORDING, strict=self._settings.strict)

    async def _resolve(self, name: str) -> Model:
        return await asyncio.to_thread(self._library.resolve, Reference.parse(name))

    def _shown(self, model: Listed, id_: str) -> JsonObject:
        return model_json(model, id_, self._scheduler.context_now(model.name, model.label))

    async def _named(self, model: str | None) -> str:
        """The model of a request that may leave it out: the only one there is."""
        if model is not None:
            return model
        loaded = {one.model.name.short for one in self._scheduler.loaded()}
        names = loaded or {one.name.short for one in await asyncio.to_thread(self._library.listed)}
        if len(names) != 1:
            raise InvalidRequest(
                "Missing required parameter: 'model'.", param="model", code="missing_required_parameter"
            )
        return names.pop()

    async def _with_files(self, request: Request, conversation: list[ConversationMessage]) -> list[ConversationMessage]:
        """The conversation with the texts of the files that it names by their ids."""
        named = await beside(request, lambda: kept_files(conversation))
        if not named:
            return conversation
        params = {id_: param for param, id_ in named}
        owner, state = owner_of(request), self._services.state
        return with_files(
            conversation, {id_: await file_text(state, owner, id_, param) for id_, param in params.items()}
        )

    async def _context(self, name: str) -> int | None:
        """The context that the model is loaded with; names that share weights share it."""
        weights = (await self._resolve(name)).files
        return next((one.num_ctx for one in self._scheduler.loaded() if one.model.files == weights), None)

    async def _fetch_images(
        self, request: Request, name: str, conversation: list[ConversationMessage]
    ) -> dict[str, bytes]:
        return await remote_media(self._services, name, await beside(request, lambda: remote_images(conversation)))


def model_json(model: Listed, id_: str, context: int) -> JsonObject:
    """OpenAI's model object, and what clients otherwise guess: capabilities, size, and the `context` of a request."""
    return {
        "id": id_,
        "object": "model",
        "created": int(model.modified.timestamp()),
        "owned_by": model.name.namespace,
        "context_length": context,
        "trained_context_length": model.label.context_length,
        "capabilities": [*sorted(model.label.capabilities)],
        "size": model.label.size,
    }


def tokenizer_json(model: Model) -> JsonObject:
    """What the file says of its tokenizer; null: nothing."""
    header = model.header
    tokens = {role: header.special_tokens.get(role) for role in ("bos", "eos", "padding", "unknown")}
    named = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token", "unknown": "unk_token"}
    return {
        "tokenizer_class": header.text("tokenizer.ggml.model"),
        **{named[role]: None if token is None else token.text for role, token in tokens.items()},
        "add_bos_token": header.add_bos,
        "vocab_size": header.vocabulary_size,
        "model_max_length": header.context_length,
        "chat_template": model.chat_template,
    }


def embeddings_json(embeddings: Embeddings, model: str, *, base64_: bool) -> JsonObject:
    data: list[JsonValue] = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if base64_ else [*vector]}
        for index, vector in enumerate(embeddings.vectors)
    ]
    usage: JsonObject = {"prompt_tokens": embeddings.prompt_tokens, "total_tokens": embeddings.prompt_tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _packed(vector: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
