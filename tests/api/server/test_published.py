"""Answers and events of the three dialects, held to the types that their own clients publish: every key of the right
kind, and no key more but those that are named here.

`PUNA_TEST_OPENAPI=FILE`: OpenAI's too, to its published description of its API (OpenAPI, in JSON).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import anthropic.types as claude
import ollama
import openai.types as gpt
import pytest
from anthropic.types.messages import DeletedMessageBatch, MessageBatch, MessageBatchIndividualResponse
from jsonschema import Draft202012Validator
from openai.types.audio import TranscriptionStreamEvent, TranscriptionVerbose
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionStoreMessage
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItem
from openai.types.responses import InputTokenCountResponse, Response, ResponseItem, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from fakes.projectors import wav
from fakes.waiting import until

HI = [{"role": "user", "content": "Hi"}]
CALLS = [{"role": "user", "content": "CALL"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
CHAT_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
USES = {"name": "get_weather", "input_schema": PARAMETERS}
CLAUDE = {"anthropic-version": "2023-06-01"}
FORM = {"content-type": "multipart/form-data; boundary=x"}
LINE = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "embedder", "input": "x"}}

OURS = {
    *(("Model", key) for key in ("capabilities", "context_length", "trained_context_length", "size")),
    # What OpenAI's own stored chats have.
    *(("ChatCompletion", key) for key in (
        "frequency_penalty", "input_user", "presence_penalty", "request_id", "response_format", "seed", "temperature",
        "tool_choice", "tools", "top_p",
    )),
    # These OpenAI's description names, or its server gives.
    *(("Response", key) for key in ("frequency_penalty", "presence_penalty", "store")),
    ("ResponseFunctionCallArgumentsDoneEvent", "name"), ("TranscriptionVerbose", "task"),
    ("Logprob", "bytes"), ("LogprobTopLogprob", "bytes"),
    ("ResponseError", "type"), ("ResponseError", "param"),
    ("MessageDeltaUsage", "cache_creation"), ("MessageDeltaUsage", "service_tier"),
    ("InvalidRequestErrorObject", "details"), ("NotFoundErrorObject", "details"),
}  # fmt: skip
"""Keys that an answer has beside those of the published type."""


def more(value: Any) -> Iterator[tuple[str, str]]:
    """The keys that the types do not know, with their types."""
    if isinstance(value, list):
        for item in value:
            yield from more(item)
    if not isinstance(value, BaseModel):
        return
    for key in value.model_extra or {}:
        yield type(value).__qualname__, key
    for name in type(value).model_fields:
        yield from more(getattr(value, name))


adapter = cache(TypeAdapter)
"""One takes a while to make."""


def check(kind: Any, value: Any) -> Any:
    found = adapter(kind).validate_python(value)
    unknown = set(more(found)) - OURS
    assert not unknown, value
    return found


def events(body: bytes) -> list[Any]:
    lines = (line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: "))
    return [json.loads(line) for line in lines if line != b"[DONE]"]


# ------------------------------------------------------------------------------------------ OpenAI's own description


class Published:
    """OpenAI's description of its API. What may be null its clients know better: it says so of few keys only."""

    def __init__(self, path: Path) -> None:
        self._whole = json.loads(path.read_text(encoding="utf-8"))
        resource = Resource.from_contents(_any_of(self._whole), default_specification=DRAFT202012)
        self._registry: Any = Registry().with_resource("urn:openai", resource)
        patterns = [(path, re.sub(r"\{[^}]+\}", "[^/]+", f"/v1{path}")) for path in self._whole["paths"]]
        self._paths = sorted(patterns, key=lambda one: one[0].count("{"))

    def check(self, method: str, path: str, value: Any, kind: str | None = None) -> None:
        """`kind`: of an event or an error, by its name."""
        place = f"components/schemas/{kind}" if kind else self._answer(method, path)
        validator = Draft202012Validator({"$ref": f"urn:openai#/{place}"}, registry=self._registry)
        problems = [one.message for error in validator.iter_errors(value) for one in _leaves(error)]
        assert not [one for one in problems if not one.startswith("None is not ")], (path, value)

    def _answer(self, method: str, path: str) -> str:
        found = next(name for name, pattern in self._paths if re.fullmatch(pattern, path))
        answers = self._whole["paths"][found][method.lower()]["responses"]
        status = "200" if "200" in answers else "201"
        escaped = found.replace("~", "~0").replace("/", "~1")
        return f"paths/{escaped}/{method.lower()}/responses/{status}/content/application~1json/schema"


def _any_of(schema: Any) -> Any:
    """Several of its alternatives often fit one value."""
    if isinstance(schema, list):
        return [_any_of(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {"anyOf" if key == "oneOf" else key: _any_of(value) for key, value in schema.items()}


def _leaves(error: Any) -> Iterator[Any]:
    """Of alternatives, what the one lacks that fits best."""
    if not error.context:
        yield error
        return
    branches: dict[Any, list[Any]] = {}
    for one in error.context:
        branches.setdefault(one.schema_path[0], []).append(one)
    for one in min(
        branches.values(), key=lambda found: (any(o.validator in {"const", "enum"} for o in found), len(found))
    ):
        yield from _leaves(one)


@pytest.fixture(scope="module")
def described() -> Any:
    path = os.environ.get("PUNA_TEST_OPENAPI")
    return Published(Path(path)) if path else None


class Caller:
    """Asks, and holds every answer to its type."""

    def __init__(self, server: Any, described: Any) -> None:
        self._server, self._described = server, described

    def __call__(self, kind: Any, method: str, path: str, body: Any = None, *, named: str | None = None) -> Any:
        headers = FORM if isinstance(body, bytes) else {}
        answer = self._server.request(method, path, body, headers=headers)
        assert answer.status == 200, answer.body
        if self._described:
            self._described.check(method, path.partition("?")[0], answer.json, named)
        return check(kind, answer.json)

    def stream(self, kind: Any, path: str, body: Any, named: str) -> list[Any]:
        sent = body if isinstance(body, bytes) else {**body, "stream": True}
        answer = self._server.post(path, sent, headers=FORM if isinstance(body, bytes) else {})
        assert answer.status == 200, answer.body
        found = events(answer.body)
        for event in found:
            check(kind, event)
            if self._described:
                self._described.check("POST", path, event, named)
        return found


@pytest.fixture
def ask(server: Any, described: Any) -> Caller:
    return Caller(server, described)


def form(data: bytes, **fields: str) -> bytes:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return b"".join(parts) + head + data + b"\r\n--x--\r\n"


# ------------------------------------------------------------------------------------------------------------ OpenAI


def test_chats_and_completions(ask: Caller) -> None:
    path = "/v1/chat/completions"
    stream_named = "CreateChatCompletionStreamResponse"
    for fields in (
        {"messages": HI, "n": 2, "logprobs": True, "top_logprobs": 2},
        {"model": "tools", "messages": CALLS, "tools": [CHAT_TOOL]},
    ):
        body = {"model": "tiny"} | fields
        ask(ChatCompletion, "POST", path, body)
        ask.stream(ChatCompletionChunk, path, {**body, "stream_options": {"include_usage": True}}, stream_named)
    plain = {"model": "tiny", "prompt": "Hi", "logprobs": 2, "max_tokens": 4}
    ask(gpt.Completion, "POST", "/v1/completions", plain)
    # The client has one type for all, of which a chunk's `finish_reason: null` is none.
    ask.stream(dict[str, Any], "/v1/completions", plain, "CreateCompletionResponse")
    ask(gpt.CreateEmbeddingResponse, "POST", "/v1/embeddings", {"model": "embedder", "input": ["a", "b"]})


def test_chats_that_are_kept(ask: Caller, server: Any) -> None:
    path = "/v1/chat/completions"
    kept = ask(ChatCompletion, "POST", path, {"model": "tiny", "messages": HI, "store": True, "metadata": {"a": "b"}})
    whole = ask(ChatCompletion, "GET", f"{path}/{kept.id}")
    assert whole.id == kept.id
    listed = ask(dict[str, Any], "GET", f"{path}?limit=1")
    check(ChatCompletion, listed["data"][0])
    messages = server.get(f"{path}/{kept.id}/messages").json
    assert messages.keys() == {"object", "data", "first_id", "last_id", "has_more"}
    assert messages["data"][0].keys() <= {*ChatCompletionStoreMessage.model_fields, "name"}
    ask(dict[str, Any], "DELETE", f"{path}/{kept.id}")


def test_models(ask: Caller) -> None:
    ask(gpt.Model, "GET", "/v1/models/tiny")
    listed = ask(dict[str, Any], "GET", "/v1/models")
    for one in listed["data"]:
        check(gpt.Model, one)


def test_responses_and_conversations(ask: Caller) -> None:
    path, named = "/v1/responses", "ResponseStreamEvent"
    conversation = ask(Conversation, "POST", "/v1/conversations", {"items": [{"role": "user", "content": "Hello"}]})
    for fields in (
        {"input": "Hi", "conversation": conversation.id, "include": ["message.output_text.logprobs"]},
        {"model": "tools", "input": "CALL", "tools": [TOOL]},
        {"model": "thinker", "input": "THINK", "reasoning": {"summary": "auto"}},
        {"input": "Hi there", "max_output_tokens": 2},
        {"input": "DIE LATE"},
    ):
        body = {"model": "tiny"} | fields
        if fields["input"] != "DIE LATE":
            made = ask(Response, "POST", path, body)
            ask(Response, "GET", f"{path}/{made.id}")
            items = ask(dict[str, Any], "GET", f"{path}/{made.id}/input_items")
            for item in items["data"]:
                check(ResponseItem, item)
        assert ask.stream(ResponseStreamEvent, path, body, named)
    items = ask(dict[str, Any], "GET", f"/v1/conversations/{conversation.id}/items")
    for item in items["data"]:
        check(ConversationItem, item)
    ask(ConversationDeletedResource, "DELETE", f"/v1/conversations/{conversation.id}")
    ask(InputTokenCountResponse, "POST", f"{path}/input_tokens", {"model": "tiny", "input": "Hi"})


def test_files_uploads_and_batches(ask: Caller) -> None:
    data = json.dumps(LINE).encode() + b"\n"
    file = ask(gpt.FileObject, "POST", "/v1/files", form(data, purpose="batch"))
    ask(gpt.FileObject, "GET", f"/v1/files/{file.id}")
    begun = {"bytes": 3, "filename": "a", "mime_type": "text/plain", "purpose": "user_data"}
    upload = ask(gpt.Upload, "POST", "/v1/uploads", begun)
    ask(gpt.Upload, "POST", f"/v1/uploads/{upload.id}/cancel")
    body = {"input_file_id": file.id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    batch = ask(gpt.Batch, "POST", "/v1/batches", body)
    until(lambda: ask(gpt.Batch, "GET", f"/v1/batches/{batch.id}").status == "completed", 60, "the batch")
    for one in ask(dict[str, Any], "GET", "/v1/batches?limit=1")["data"]:
        check(gpt.Batch, one)
    ask(gpt.FileDeleted, "DELETE", f"/v1/files/{file.id}")


def test_sounds(ask: Caller) -> None:
    path = "/v1/audio/transcriptions"
    sound, fields = wav(0.5, 440), {"model": "listener"}
    ask(gpt.audio.Transcription, "POST", path, form(sound, **fields))
    ask(TranscriptionVerbose, "POST", path, form(sound, response_format="verbose_json", **fields))
    named = "CreateTranscriptionResponseStreamEvent"
    assert ask.stream(TranscriptionStreamEvent, path, form(sound, stream="true", **fields), named)


def test_errors(server: Any, described: Any) -> None:
    for path, body in (("/v1/chat/completions", {}), ("/v1/responses", {"model": "nope", "input": "x"})):
        answer = server.post(path, body)
        assert answer.status in {400, 404}
        check(gpt.shared.ErrorObject, answer.error)
        if described:
            described.check("POST", path, answer.json, "ErrorResponse")


# --------------------------------------------------------------------------------------------------------- Anthropic


def test_messages(server: Any) -> None:
    for fields in ({"messages": HI}, {"model": "tools", "messages": CALLS, "tools": [USES]}):
        body = {"model": "tiny", "max_tokens": 50} | fields
        check(claude.Message, server.post("/v1/messages", body, headers=CLAUDE).json)
        counted = {key: value for key, value in body.items() if key != "max_tokens"}
        check(claude.MessageTokensCount, server.post("/v1/messages/count_tokens", counted, headers=CLAUDE).json)
        streamed = events(server.post("/v1/messages", {**body, "stream": True}, headers=CLAUDE).body)
        for event in streamed:
            if event != {"type": "ping"}:
                check(claude.RawMessageStreamEvent, event)
        assert streamed[-1] == {"type": "message_stop"}
    check(claude.ModelInfo, server.get("/v1/models/tiny", headers=CLAUDE).json)
    check(claude.ErrorResponse, server.post("/v1/messages", {}, headers=CLAUDE).json)


def test_batches_of_messages(server: Any) -> None:
    path = "/v1/messages/batches"
    requests = [{"custom_id": "a", "params": {"model": "tiny", "max_tokens": 5, "messages": HI}}]
    made = check(MessageBatch, server.post(path, {"requests": requests}, headers=CLAUDE).json)

    def told() -> MessageBatch:
        found: MessageBatch = check(MessageBatch, server.get(f"{path}/{made.id}", headers=CLAUDE).json)
        return found

    until(lambda: told().processing_status == "ended", 60, "the batch")
    results = server.get(f"{path}/{made.id}/results", headers=CLAUDE).body
    check(MessageBatchIndividualResponse, json.loads(results))
    check(DeletedMessageBatch, server.request("DELETE", f"{path}/{made.id}", headers=CLAUDE).json)


# ------------------------------------------------------------------------------------------------------------ Ollama


def test_ollamas_api(server: Any) -> None:
    """Its types pass over keys that they do not know."""
    for path, kind, body in (
        ("/api/chat", ollama.ChatResponse, {"model": "tools", "messages": CALLS, "tools": [CHAT_TOOL]}),
        ("/api/chat", ollama.ChatResponse, {"model": "thinker", "messages": HI, "logprobs": True}),
        ("/api/generate", ollama.GenerateResponse, {"model": "tiny", "prompt": "Hi", "logprobs": True}),
    ):
        check(kind, server.post(path, {**body, "stream": False}).json)
        for line in server.post(path, body).body.splitlines():
            check(kind, json.loads(line))
    check(ollama.EmbedResponse, server.post("/api/embed", {"model": "embedder", "input": "x"}).json)
    check(ollama.ShowResponse, server.post("/api/show", {"model": "tiny"}).json)
    check(ollama.ListResponse, server.get("/api/tags").json)
    check(ollama.ProcessResponse, server.get("/api/ps").json)
