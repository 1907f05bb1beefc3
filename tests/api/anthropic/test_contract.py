"""Each row of the contract, of bodies and of what is inside them: honoured with an effect, refused, or reported."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from anthropic._constants import ANTHROPIC_API_VERSION
from PIL import Image

from puna.server.anthropic import blocks, messages, thinking, tools
from puna.server.anthropic.bodies import (
    BODIES,
    BatchedMessage,
    CountBody,
    FileUploadForm,
    MessageBatchBody,
    MessagesBody,
    RequestMetadata,
)
from puna.server.contract.reference import nested_shapes
from puna.server.contract.shapes import Honoured, Refused, Reported, Shape, shape_fields

PATHS: dict[type[Shape], str] = {
    MessagesBody: "/v1/messages",
    CountBody: "/v1/messages/count_tokens",
    MessageBatchBody: "/v1/messages/batches",
}
ANSWERED = (MessagesBody, CountBody)
TOOL = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
SCHEMA = {"type": "object"}
MARK = {"type": "ephemeral"}


def png(mode: str = "RGB") -> str:
    data = io.BytesIO()
    Image.new(mode, (2, 2)).save(data, "png")
    return base64.b64encode(data.getvalue()).decode()


def pdf() -> str:
    """A page that says `Page one`."""
    stream = b"BT /F1 12 Tf 72 720 Td (Page one) Tj ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    text, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(text))
        text += b"%d 0 obj%s endobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 6\n0000000000 65535 f \n%strailer<</Root 1 0 R/Size 6>>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(text),
    )
    return base64.b64encode(text + end).decode()


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **more}


def asks(block: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The block in a message whose whole prompt is echoed."""
    return said([{"type": "text", "text": "PROMPT"}, block], **more)


def called(call: dict[str, Any] | None = None, result: dict[str, Any] | None = None) -> dict[str, Any]:
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}, **(call or {})}
    answer = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "PROMPT rain", **(result or {})}
    turns = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [answer]},
    ]
    return {"messages": turns, "model": "tools", "tools": [TOOL]}


def text(answer: Any) -> str:
    return "".join(block["text"] for block in answer.json["content"] if block["type"] == "text")


def of_type(answer: Any, kind: str) -> list[dict[str, Any]]:
    return [block for block in answer.json["content"] if block["type"] == kind]


def shows(*words: str) -> Callable[[Any], bool]:
    """The prompt that the engine got holds these."""
    return lambda answer: all(word in text(answer) for word in words)


def setting(**wanted: Any) -> Callable[[Any], bool]:
    return lambda answer: wanted.items() <= json.loads(text(answer)).items()


def constrained(answer: Any) -> bool:
    return '"grammar": "' in text(answer) and '"grammar": ""' not in text(answer)


def calls(count: int) -> Callable[[Any], bool]:
    return lambda answer: len(of_type(answer, "tool_use")) == count


def echoed(**call: Any) -> Callable[[Any], bool]:
    """The call of the prompt, which its echo makes again."""
    return lambda answer: any(call.items() <= block.items() for block in of_type(answer, "tool_use"))


def counts(more: int) -> Callable[[Any], bool]:
    return lambda answer: answer.json["input_tokens"] > more


def closed(answer: Any) -> bool:
    return text(answer).endswith("<think>\n\n</think>\n\n")


@dataclass(frozen=True)
class Effect:
    """A request, by what it changes of one that echoes the engine's settings, and what its answer shows."""

    change: dict[str, Any]
    shows: Callable[[Any], object]


Row = tuple[type[Shape], str]

EFFECTS: dict[Row, Effect] = {
    (MessagesBody, "model"): Effect({"model": "tiny"}, lambda a: a.json["model"] == "tiny"),
    (MessagesBody, "messages"): Effect(said("PROMPT here"), shows("PROMPT here")),
    (MessagesBody, "max_tokens"): Effect({"max_tokens": 3}, lambda a: a.json["usage"]["output_tokens"] == 3),
    (MessagesBody, "stream"): Effect({"stream": True}, lambda a: a.body.startswith(b"event: message_start\n")),
    (MessagesBody, "system"): Effect(said("PROMPT", system="Be brief."), shows("system\nBe brief.")),
    (MessagesBody, "temperature"): Effect({"temperature": 0.25}, setting(temperature=0.25)),
    (MessagesBody, "top_p"): Effect({"top_p": 0.5}, setting(top_p=0.5)),
    (MessagesBody, "top_k"): Effect({"top_k": 7}, setting(top_k=7)),
    (MessagesBody, "stop_sequences"): Effect(
        {"stop_sequences": ["temperature"]},
        lambda a: (a.json["stop_reason"], a.json["stop_sequence"]) == ("stop_sequence", "temperature"),
    ),
    (MessagesBody, "service_tier"): Effect(
        {"service_tier": "auto"}, lambda a: a.json["usage"]["service_tier"] == "standard"
    ),
    (MessagesBody, "metadata"): Effect({"metadata": {}}, lambda a: "x-puna-ignored" not in a.headers),
    (MessagesBody, "cache_control"): Effect(
        said("PROMPT marked", cache_control=MARK), lambda a: a.json["usage"]["cache_creation_input_tokens"] > 0
    ),
    (MessagesBody, "options"): Effect({"options": {"mirostat": 2}}, setting(mirostat=2)),
    (MessagesBody, "keep_alive"): Effect({"keep_alive": "10m"}, lambda a: a.status == 200),
    (MessagesBody, "num_ctx"): Effect(
        {"num_ctx": 512, "max_tokens": 4000}, lambda a: json.loads(text(a))["max_tokens"] < 512
    ),
    (MessagesBody, "tools"): Effect(said("PROMPT", model="tools", tools=[TOOL]), shows("get_weather")),
    (MessagesBody, "tool_choice"): Effect(
        said("CALL", model="tools", tools=[TOOL], tool_choice={"type": "any"}), calls(1)
    ),
    (MessagesBody, "thinking"): Effect(said("PROMPT", model="thinker", thinking={"type": "disabled"}), closed),
    (MessagesBody, "output_config"): Effect(
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, constrained
    ),
    (MessagesBody, "output_format"): Effect({"output_format": {"type": "json_schema", "schema": SCHEMA}}, constrained),
    (CountBody, "model"): Effect({"model": "tiny"}, counts(5)),
    (CountBody, "messages"): Effect(said("a" * 100), counts(100)),
    (CountBody, "system"): Effect({"system": "a" * 100}, counts(100)),
    (CountBody, "cache_control"): Effect({"cache_control": MARK}, counts(5)),
    (CountBody, "options"): Effect({"options": {"num_ctx": 512}}, counts(5)),
    (CountBody, "keep_alive"): Effect({"keep_alive": 60}, counts(5)),
    (CountBody, "num_ctx"): Effect({"num_ctx": 512}, counts(5)),
    (CountBody, "tools"): Effect({"model": "tools", "tools": [TOOL]}, counts(100)),
    (CountBody, "tool_choice"): Effect(
        {"model": "tools", "tools": [TOOL], "tool_choice": {"type": "none"}}, lambda a: a.json["input_tokens"] < 60
    ),
    (CountBody, "thinking"): Effect({"model": "thinker", "thinking": {"type": "disabled"}}, counts(5)),
    (CountBody, "output_config"): Effect(
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, counts(5)
    ),
    (CountBody, "output_format"): Effect({"output_format": {"type": "json_schema", "schema": SCHEMA}}, counts(5)),
    (MessageBatchBody, "requests"): Effect({}, lambda a: a.json["request_counts"]["processing"] == 1),
    # inside of them
    (BatchedMessage, "custom_id"): Effect(
        {"requests": [{"custom_id": "?", "params": {"model": "tiny"}}]},
        lambda a: a.status == 400 and "custom_id" in a.error["message"],
    ),
    (BatchedMessage, "params"): Effect(
        {"requests": [{"custom_id": "a", "params": {}}]},
        lambda a: a.status == 400 and "params.model" in a.error["message"],
    ),
    (tools.CallersTool, "name"): Effect(said("PROMPT", model="tools", tools=[TOOL]), shows('"name": "get_weather"')),
    (tools.CallersTool, "description"): Effect(
        said("PROMPT", model="tools", tools=[TOOL | {"description": "What it is like"}]), shows("What it is like")
    ),
    (tools.CallersTool, "input_schema"): Effect(said("PROMPT", model="tools", tools=[TOOL]), shows('"city"')),
    (tools.CallersTool, "strict"): Effect(said("CALL", model="tools", tools=[TOOL | {"strict": True}]), calls(1)),
    (tools.CallersTool, "cache_control"): Effect(
        said("CALL marked", model="tools", tools=[TOOL | {"cache_control": MARK}]),
        lambda a: a.json["usage"]["cache_creation_input_tokens"] > 0,
    ),
    (tools.CallersTool, "eager_input_streaming"): Effect(
        said("CALL", model="tools", tools=[TOOL | {"eager_input_streaming": True}]), calls(1)
    ),
    (tools.ChoiceAuto, "disable_parallel_tool_use"): Effect(
        said(
            "CALL",
            model="tools",
            tools=[TOOL],
            tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        ),
        calls(1),
    ),
    (tools.ChoiceAny, "disable_parallel_tool_use"): Effect(
        said("CALL", model="tools", tools=[TOOL], tool_choice={"type": "any", "disable_parallel_tool_use": True}),
        calls(1),
    ),
    (tools.ChoiceTool, "disable_parallel_tool_use"): Effect(
        said(
            "CALL",
            model="tools",
            tools=[TOOL],
            tool_choice={"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
        ),
        calls(1),
    ),
    (tools.ChoiceTool, "name"): Effect(
        said("CALL", model="tools", tools=[TOOL], tool_choice={"type": "tool", "name": "get_weather"}), calls(1)
    ),
    (thinking.ThinkingEnabled, "budget_tokens"): Effect(
        said("THINK", model="thinker", thinking={"type": "enabled", "budget_tokens": 2}),
        lambda a: of_type(a, "thinking")[0]["thinking"] == "Let",
    ),
    (thinking.ThinkingEnabled, "display"): Effect(
        said("THINK", model="thinker", thinking={"type": "enabled", "budget_tokens": 2, "display": "omitted"}),
        lambda a: of_type(a, "thinking")[0]["thinking"] == "" and of_type(a, "thinking")[0]["signature"],
    ),
    (thinking.ThinkingAdaptive, "display"): Effect(
        said("THINK", model="thinker", thinking={"type": "adaptive", "display": "summarized"}),
        lambda a: of_type(a, "thinking")[0]["thinking"] == "Let me see.",
    ),
    (thinking.OutputConfig, "effort"): Effect(
        said("PROMPT", model="levels", output_config={"effort": "xhigh"}), shows("Effort: high")
    ),
    (thinking.OutputConfig, "format"): Effect(
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, constrained
    ),
    (thinking.JsonFormat, "schema"): Effect(
        said("JSON", output_config={"format": {"type": "json_schema", "schema": {"type": "array"}}}),
        # The script's answer is an object: it is held to the schema.
        lambda a: a.status == 500 and "the form that was asked for" in a.error["message"],
    ),
    (messages.UserTurn, "content"): Effect(said([{"type": "text", "text": "PROMPT"}]), shows("user\nPROMPT")),
    (messages.AssistantTurn, "content"): Effect(
        {"messages": [{"role": "user", "content": "PROMPT"}, {"role": "assistant", "content": "Once"}]},
        lambda a: text(a).endswith("assistant\nOnce"),
    ),
    (messages.SystemTurn, "content"): Effect(
        {"messages": [{"role": "user", "content": "PROMPT"}, {"role": "system", "content": "Now be brief."}]},
        shows("system\nNow be brief."),
    ),
    (blocks.TextBlock, "text"): Effect(asks({"type": "text", "text": "and more"}), shows("PROMPT\nand more")),
    (blocks.TextBlock, "cache_control"): Effect(
        asks({"type": "text", "text": "marked", "cache_control": MARK}),
        lambda a: a.json["usage"]["cache_creation_input_tokens"] > 0,
    ),
    (blocks.ImageBlock, "source"): Effect(
        asks({"type": "image", "source": {"type": "base64", "data": png(), "media_type": "image/png"}}, model="vision"),
        shows("<__media__>"),
    ),
    (blocks.ImageBlock, "cache_control"): Effect(
        asks(
            {
                "type": "image",
                "source": {"type": "base64", "data": png(), "media_type": "image/png"},
                "cache_control": MARK,
            },
            model="vision",
        ),
        shows("<__media__>"),
    ),
    (blocks.ImageBase64, "data"): Effect(
        asks(
            {"type": "image", "source": {"type": "base64", "data": png("L"), "media_type": "image/png"}},
            model="vision",
        ),
        shows("<__media__>"),
    ),
    (blocks.ImageBase64, "media_type"): Effect(
        asks(
            {"type": "image", "source": {"type": "base64", "data": png(), "media_type": "image/jpeg"}}, model="vision"
        ),
        shows("<__media__>"),
    ),
    (blocks.ImageAtUrl, "url"): Effect(
        asks({"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:9/x.png"}}, model="vision"),
        lambda a: a.status == 400 and "could not be fetched" in a.error["message"],
    ),
    (blocks.DocumentBlock, "source"): Effect(
        asks({"type": "document", "source": {"type": "text", "data": "All of it", "media_type": "text/plain"}}),
        shows("All of it"),
    ),
    (blocks.DocumentBlock, "title"): Effect(
        asks(
            {
                "type": "document",
                "title": "Report",
                "source": {"type": "text", "data": "All", "media_type": "text/plain"},
            }
        ),
        shows("Report\nAll"),
    ),
    (blocks.DocumentBlock, "context"): Effect(
        asks(
            {
                "type": "document",
                "context": "From May",
                "source": {"type": "text", "data": "All", "media_type": "text/plain"},
            }
        ),
        shows("From May\nAll"),
    ),
    (blocks.DocumentBlock, "citations"): Effect(
        asks(
            {
                "type": "document",
                "citations": {"enabled": False},
                "source": {"type": "text", "data": "All", "media_type": "text/plain"},
            }
        ),
        shows("All"),
    ),
    (blocks.DocumentBlock, "cache_control"): Effect(
        asks(
            {
                "type": "document",
                "cache_control": MARK,
                "source": {"type": "text", "data": "Some text to keep", "media_type": "text/plain"},
            }
        ),
        lambda a: a.json["usage"]["cache_creation_input_tokens"] > 0,
    ),
    (blocks.FileSource, "file_id"): Effect(
        asks({"type": "document", "source": {"type": "file", "file_id": "file-1"}}),
        lambda a: a.status == 404 and "file-1" in a.error["message"],
    ),
    (blocks.DocumentAtUrl, "url"): Effect(
        asks({"type": "document", "source": {"type": "url", "url": "http://127.0.0.1:9/a.txt"}}),
        lambda a: a.status == 400 and "messages[0].content[1].source.url" in a.error["message"],
    ),
    (FileUploadForm, "expires_in_seconds"): Effect(
        {"expires_in_seconds": 7200}, lambda a: a.json["expires_at"] > a.json["created_at"]
    ),
    (blocks.DocumentText, "data"): Effect(
        asks({"type": "document", "source": {"type": "text", "data": "It says so", "media_type": "text/plain"}}),
        shows("It says so"),
    ),
    (blocks.DocumentText, "media_type"): Effect(
        asks({"type": "document", "source": {"type": "text", "data": "It says so", "media_type": "text/plain"}}),
        shows("It says so"),
    ),
    (blocks.DocumentBase64, "data"): Effect(
        asks({"type": "document", "source": {"type": "base64", "data": pdf(), "media_type": "application/pdf"}}),
        shows("Page one"),
    ),
    (blocks.DocumentBase64, "media_type"): Effect(
        asks({"type": "document", "source": {"type": "base64", "data": pdf(), "media_type": "application/pdf"}}),
        shows("Page one"),
    ),
    (blocks.DocumentContent, "content"): Effect(
        asks(
            {
                "type": "document",
                "source": {
                    "type": "content",
                    "content": [
                        {"type": "text", "text": "Chapter one"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "data": png(), "media_type": "image/png"},
                        },
                    ],
                },
            },
            model="vision",
        ),
        shows("Chapter one", "<__media__>"),
    ),
    (blocks.SearchResultBlock, "source"): Effect(
        asks({"type": "search_result", "source": "here.example", "title": "T", "content": []}), shows("here.example")
    ),
    (blocks.SearchResultBlock, "title"): Effect(
        asks({"type": "search_result", "source": "s", "title": "Found it", "content": []}), shows("Found it\ns")
    ),
    (blocks.SearchResultBlock, "content"): Effect(
        asks({"type": "search_result", "source": "s", "title": "T", "content": [{"type": "text", "text": "Words"}]}),
        shows("T\ns\nWords"),
    ),
    (blocks.SearchResultBlock, "citations"): Effect(
        asks({"type": "search_result", "source": "s", "title": "T", "content": [], "citations": {"enabled": False}}),
        shows("T\ns"),
    ),
    (blocks.SearchResultBlock, "cache_control"): Effect(
        asks({"type": "search_result", "source": "kept", "title": "T", "content": [], "cache_control": MARK}),
        lambda a: a.json["usage"]["cache_creation_input_tokens"] > 0,
    ),
    (blocks.ToolResultBlock, "tool_use_id"): Effect(
        called(result={"tool_use_id": "other"}),
        lambda a: a.status == 400 and "messages[2].content[0].tool_use_id" in a.error["message"],
    ),
    (blocks.ToolResultBlock, "content"): Effect(called(), shows("tool\nPROMPT rain")),
    (blocks.ToolResultBlock, "is_error"): Effect(called(result={"is_error": True}), shows("tool\nError: PROMPT rain")),
    (blocks.ToolResultBlock, "cache_control"): Effect(
        called(result={"cache_control": MARK, "content": "PROMPT kept"}),
        lambda a: a.json["usage"]["cache_creation_input_tokens"] > 0,
    ),
    (blocks.ToolUseBlock, "id"): Effect(called(call={"id": "t9"}, result={"tool_use_id": "t9"}), shows("PROMPT rain")),
    (blocks.ToolUseBlock, "name"): Effect(called(), echoed(name="get_weather")),
    (blocks.ToolUseBlock, "input"): Effect(called(call={"input": {"city": "Rome"}}), echoed(input={"city": "Rome"})),
    (blocks.ToolUseBlock, "cache_control"): Effect(
        called(call={"cache_control": MARK, "input": {"city": "Bern"}}),
        lambda a: a.json["usage"]["cache_creation_input_tokens"] > 0,
    ),
    (blocks.ThinkingBlock, "thinking"): Effect(
        {
            "model": "thinker",
            "messages": [
                {"role": "user", "content": "Hi"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "So he says.", "signature": "x"},
                        {"type": "text", "text": "Hello"},
                    ],
                },
                {"role": "user", "content": "PROMPT"},
            ],
        },
        shows("So he says."),
    ),
    (blocks.ThinkingBlock, "signature"): Effect(
        {
            "model": "thinker",
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "Unsigned.", "signature": ""}]},
                {"role": "user", "content": "PROMPT"},
            ],
        },
        shows("Unsigned."),
    ),
}

REDACTED = {
    "messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "Y"}]},
        {"role": "user", "content": "PROMPT"},
    ]
}
EFFECTLESS: dict[Row, tuple[dict[str, Any], str]] = {
    **{
        (body, name): ({name: value}, name)
        for body in ANSWERED
        for name, value in {
            "speed": "fast",
            "context_management": {"edits": []},
            "compaction": {"a": 1},
            "user_profile_id": "me",
            "workspace_id": "wrkspc_1",
        }.items()
    },
    (MessageBatchBody, "user_profile_id"): ({"user_profile_id": "me"}, "user_profile_id"),
    (MessageBatchBody, "workspace_id"): ({"workspace_id": "wrkspc_1"}, "workspace_id"),
    (MessagesBody, "inference_geo"): ({"inference_geo": "eu"}, "inference_geo"),
    (MessagesBody, "diagnostics"): ({"diagnostics": {"previous_message_id": "msg_1"}}, "diagnostics"),
    (MessagesBody, "billing_policy"): ({"billing_policy": {"a": 1}}, "billing_policy"),
    (RequestMetadata, "user_id"): ({"metadata": {"user_id": "me"}}, "metadata.user_id"),
    (blocks.CacheControl, "ttl"): ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, "cache_control.ttl"),
    (blocks.CacheControl, "scope"): ({"cache_control": {"type": "ephemeral", "scope": "x"}}, "cache_control.scope"),
    (thinking.OutputConfig, "task_budget"): ({"output_config": {"task_budget": {"a": 1}}}, "output_config.task_budget"),
    (tools.CallersTool, "defer_loading"): ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
    (tools.CallersTool, "input_examples"): ({"tools": [TOOL | {"input_examples": [{}]}]}, "tools[0].input_examples"),
    (blocks.TextBlock, "citations"): (
        said([{"type": "text", "text": "Hi", "citations": [{"a": 1}]}]),
        "messages[0].content[0].citations",
    ),
    (blocks.ImageBlock, "transformations"): (
        asks(
            {
                "type": "image",
                "source": {"type": "base64", "data": png(), "media_type": "image/png"},
                "transformations": {"oversized_image": "downsize"},
            },
            model="vision",
        ),
        "messages[0].content[1].transformations",
    ),
    (blocks.ToolResultBlock, "toolset_name"): (
        called(result={"toolset_name": "x"}),
        "messages[2].content[0].toolset_name",
    ),
    (blocks.ToolUseBlock, "toolset_name"): (called({"toolset_name": "x"}), "messages[1].content[0].toolset_name"),
    (blocks.ToolUseBlock, "caller"): (
        called({"caller": {"type": "code_execution_20250825"}}),
        "messages[1].content[0].caller",
    ),
    (blocks.RedactedThinkingBlock, "data"): (REDACTED, "messages[1].content[0].data"),
}
DOCUMENT = {"type": "text", "data": "x", "media_type": "text/plain"}
REFUSED: dict[Row, tuple[dict[str, Any], str]] = {
    **{(body, "mcp_servers"): ({"mcp_servers": [{"url": "http://x"}]}, "mcp_servers") for body in ANSWERED},
    **{(MessagesBody, name): ({name: {"a": 1}}, name) for name in ("fallbacks", "container", "thread")},
    (tools.CallersTool, "allowed_callers"): (
        {"tools": [TOOL | {"allowed_callers": ["code_execution_20250825"]}]},
        "tools[0].allowed_callers",
    ),
    (blocks.Citations, "enabled"): (
        asks({"type": "document", "source": DOCUMENT, "citations": {"enabled": True}}),
        "messages[0].content[1].citations.enabled",
    ),
}

ROWS = [(shape, row) for shape in (*BODIES, *nested_shapes(BODIES)) for row in shape_fields(shape)]


def upload(server: Any, fields: dict[str, Any]) -> Any:
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}' for name, value in fields.items()]
    parts.append('Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nsome text')
    body = "".join(f"--limit\r\n{part}\r\n" for part in parts) + "--limit--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=limit", "anthropic-version": "2023-06-01"}
    return server.post("/v1/files", body.encode(), headers=headers)


def send(server: Any, shape: type[Shape], change: dict[str, Any], **headers: str) -> Any:
    body = {"model": "tiny", "max_tokens": 2000, **said("SAMPLING"), **change}
    path = PATHS.get(shape, "/v1/messages")
    if shape in {MessageBatchBody, BatchedMessage}:
        path = "/v1/messages/batches"
        body = {"requests": [{"custom_id": "a", "params": {"model": "tiny"}}], **change}
    if shape is FileUploadForm:
        return upload(server, change)
    if shape is CountBody:
        body.pop("max_tokens")
    return server.post(path, body, headers=headers)


def named(rows: dict[Row, Any]) -> list[Any]:
    return [pytest.param(row, id=f"{row[0].__name__}-{row[1]}") for row in rows]


@pytest.mark.parametrize("row", named(EFFECTS))
def test_honoured_fields_have_their_effect(levels: Any, row: Row) -> None:
    answer = send(levels, row[0], EFFECTS[row].change)
    assert EFFECTS[row].shows(answer), answer.body
    assert row[1] not in answer.headers.get("x-puna-ignored", "")


@pytest.mark.parametrize("row", named(EFFECTLESS))
def test_reported_fields_are_named(levels: Any, row: Row) -> None:
    change, path = EFFECTLESS[row]
    answer = send(levels, row[0], change)
    assert answer.status == 200, answer.body
    assert answer.headers["x-puna-ignored"] == path


@pytest.mark.parametrize("row", named(REFUSED))
def test_refused_fields_are_refused(levels: Any, row: Row) -> None:
    change, path = REFUSED[row]
    answer = send(levels, row[0], change)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert f"'{path}'" in answer.error["message"]


def test_harmless_values_ask_for_nothing(server: Any) -> None:
    assert "x-puna-ignored" not in send(server, MessagesBody, {"speed": "standard", "mcp_servers": []}).headers
    quiet = TOOL | {"defer_loading": False, "input_examples": [], "allowed_callers": ["direct"], "type": "custom"}
    answer = send(server, MessagesBody, {"model": "tools", "tools": [quiet]})
    assert (answer.status, answer.headers.get("x-puna-ignored")) == (200, None)
    direct = called({"caller": {"type": "direct"}})
    assert "x-puna-ignored" not in send(server, MessagesBody, direct).headers


def test_every_row_has_a_mark_and_a_proof() -> None:
    proofs = {Honoured: EFFECTS, Reported: EFFECTLESS, Refused: REFUSED}
    for shape, row in ROWS:
        if row.name in {"type", "role"}:
            continue
        assert row.mark is not None, f"{shape.__name__}.{row.name}"
        assert (shape, row.name) in proofs[type(row.mark)], f"{shape.__name__}.{row.name}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": None}, "Missing required parameter: 'max_tokens'"),
        ({"max_tokens": -1}, "'max_tokens': integer below minimum"),
        ({"temperature": 1.5}, "'temperature': decimal above maximum"),
        ({"messages": []}, "'messages': empty array"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "'user', 'assistant', and 'system'"),
        (said([{"type": "tool_use", "id": "1", "name": "f", "input": {}}]), "'messages[0].content[0]'"),
        (said([{"text": "x"}]), "'messages[0].content[0]'"),
        (said([{"type": "text"}]), "'messages[0].content[0].text'"),
        (
            said([{"type": "image", "source": {"type": "base64", "data": "?", "media_type": "image/png"}}]),
            "source.data",
        ),
        ({"thinking": {"type": "enabled"}}, "'thinking.budget_tokens'"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "must be greater than 'thinking.budget_tokens'"),
        ({"tool_choice": {"type": "any"}}, "'tools' must be set"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "nope"}}, "'nope' is not among 'tools'"),
        ({"tools": [TOOL, TOOL]}, "'get_weather' is there more than once"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "'web_search_20250305'"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "'bash_20250124'"),
        ({"tools": [{"name": "f"}]}, "'tools[0].input_schema'"),
        (said([{"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}}]), "'server_tool_use'"),
        ({"messages": called()["messages"][:2]}, "that has tool_use blocks"),
        ({"stop_sequences": [""]}, "'stop_sequences[0]'"),
        (
            {"output_format": {"type": "json_schema", "schema": {"type": "frog"}}},
            "output_format.schema",
        ),
    ],
)
def test_what_is_wrong_is_named(server: Any, change: dict[str, Any], words: str) -> None:
    answer = send(server, MessagesBody, change)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert words in answer.error["message"]


def test_unknown_fields_are_reported_or_refused(server: Any) -> None:
    answer = send(server, MessagesBody, {"frobnicate": 1})
    assert (answer.status, answer.headers["x-puna-ignored"]) == (200, "frobnicate")
    refused = send(server, MessagesBody, {"frobnicate": 1}, **{"x-puna-strict": "true"})
    assert (refused.status, refused.error["message"]) == (400, "Unknown parameter: 'frobnicate'.")


def test_another_version_is_reported(server: Any) -> None:
    for shape in ANSWERED:
        for spoken in ("2023-06-01", "2026-10-21", ANTHROPIC_API_VERSION):
            assert "x-puna-ignored" not in send(server, shape, {}, **{"anthropic-version": spoken}).headers
        other = send(server, shape, {}, **{"anthropic-version": "2099-01-01"})
        assert (other.status, other.headers["x-puna-ignored"]) == (200, "anthropic-version")


def test_what_a_version_has_no_more_is_honoured_and_told(server: Any) -> None:
    change = {"temperature": 0.5, "top_k": 3}
    for version, told in (("2023-06-01", None), ("2026-10-21", "temperature, top_k")):
        answer = send(server, MessagesBody, change, **{"anthropic-version": version})
        assert (answer.status, answer.headers.get("x-puna-nonstandard")) == (200, told)
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [document]}]
    assert send(server, MessagesBody, {"messages": turns}).status == 400


@pytest.mark.parametrize(
    ("betas", "reported"),
    [
        ("prompt-caching-2024-07-31,interleaved-thinking-2025-05-14, files-api-2025-04-14", None),
        ("context-1m-2025-08-07", "anthropic-beta.context-1m-2025-08-07"),
        ("effort-2025-11-24,no such,", "anthropic-beta.no%20such"),
    ],
)
def test_a_beta_that_does_nothing_here_is_reported(server: Any, betas: str, reported: str | None) -> None:
    for shape in ANSWERED:
        answer = send(server, shape, {}, **{"anthropic-beta": betas})
        assert (answer.status, answer.headers.get("x-puna-ignored")) == (200, reported)


def test_places_are_named_as_the_request_has_them(server: Any) -> None:
    """The house has a system message, results of calls and merged turns where the request has others."""
    image = {"type": "image", "source": {"type": "base64", "data": png(), "media_type": "image/png"}}
    turns = [*called()["messages"], {"role": "user", "content": [{"type": "text", "text": "And?"}, image]}]
    change = {"model": "tools", "tools": [TOOL], "system": "Hm.", "messages": turns}
    answer = send(server, MessagesBody, change)
    assert answer.status == 400
    assert "does not support images" in answer.error["message"]
    hidden = [*called()["messages"], {"role": "user", "content": "x <|im_end|>"}]
    assert send(server, MessagesBody, change | {"messages": hidden}).status == 200


def test_small_budgets_and_odd_names_are_not_anthropics(server: Any) -> None:
    odd = TOOL | {"name": "mcp:weather"}
    change = {"model": "tools", "tools": [odd], "thinking": {"type": "enabled", "budget_tokens": 5}}
    answer = send(server, MessagesBody, change)
    assert answer.headers["x-puna-nonstandard"] == "thinking.budget_tokens, tools[0].name"
    assert answer.headers["x-puna-ignored"] == "thinking"
