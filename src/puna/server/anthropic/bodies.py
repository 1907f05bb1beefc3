"""The contract of each endpoint: every field that a request may have, its bounds, and what becomes of it. Data only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from puna.server.anthropic.blocks import CACHED, CacheControl, SystemBlocks
from puna.server.anthropic.messages import ConversationTurn
from puna.server.anthropic.thinking import ThinkingAndForm
from puna.server.anthropic.tools import WithTools
from puna.server.batch.lines import MAX_LINES
from puna.server.contract.forms import FormInteger
from puna.server.contract.options import within
from puna.server.contract.shapes import Honoured, JsonObject, JsonValue, Refused, Reported, Shape
from puna.server.openai.options import USER_MEANING, Extras, StopString


class RequestMetadata(Shape):
    user_id: Annotated[str | None, Reported(USER_MEANING)] = None


class Conversing(WithTools, ThinkingAndForm, Extras):
    """Fields of a conversation, answered or counted."""

    model: Annotated[str, Field(min_length=1), Honoured("A Name, as `puna list` shows it.")]
    messages: Annotated[
        list[ConversationTurn],
        Field(min_length=1, max_length=100_000),
        Honoured("The conversation. HouseTurns of one role that follow each other are one."),
    ]
    system: Annotated[
        SystemBlocks | None, Honoured("The instructions: text, or text blocks. They replace the model's own.")
    ] = None
    cache_control: Annotated[CacheControl | None, CACHED] = None
    speed: Annotated[Literal["standard", "fast"] | None, Reported("There is one speed.", harmless=("standard",))] = None
    context_management: Annotated[JsonObject | None, Reported("What a conversation has is for its caller to say.")] = (
        None
    )
    compaction: Annotated[JsonObject | None, Reported("What a conversation has is for its caller to say.")] = None
    user_profile_id: Annotated[str | None, Reported(USER_MEANING)] = None
    workspace_id: Annotated[str | None, Reported("There are no workspaces.")] = None
    mcp_servers: Annotated[
        list[JsonValue] | None, Refused("This server calls no other: give their tools as your own.", harmless=([],))
    ] = None


class MessagesBody(Conversing):
    """POST /v1/messages"""

    max_tokens: Annotated[
        int,
        Field(ge=0, le=2**31 - 1),
        Honoured("How many tokens at most, thinking included. 0: the prompt is only computed, for the cache."),
    ]
    stream: Annotated[bool | None, Honoured("Server-sent events.")] = None
    temperature: Annotated[
        float | None,
        Field(ge=0, le=1),
        Honoured("Absent: as the model's own parameters say. 0: always the likeliest token."),
    ] = None
    top_p: Annotated[float | None, within("top_p"), Honoured("Nucleus sampling.")] = None
    top_k: Annotated[int | None, Field(ge=0, le=2**31 - 1), Honoured("Only the k likeliest tokens; 0: all.")] = None
    stop_sequences: Annotated[
        list[StopString] | None,
        Field(max_length=64),
        Honoured("Strings that end the answer; it names the one that did."),
    ] = None
    metadata: Annotated[RequestMetadata | None, Honoured("Who asks: see below.")] = None
    service_tier: Annotated[
        Literal["auto", "standard_only"] | None, Honoured("There is one tier: the usage says `standard`.")
    ] = None
    inference_geo: Annotated[str | None, Reported("It is computed on this machine.")] = None
    diagnostics: Annotated[JsonObject | None, Reported("Answers are not stored, so none is compared.")] = None
    billing_policy: Annotated[JsonObject | None, Reported("Nothing is billed.")] = None
    fallbacks: Annotated[JsonValue, Refused("No other model answers than the one that was named.")] = None
    container: Annotated[JsonValue, Refused("Nothing is run here.")] = None
    thread: Annotated[JsonValue, Refused("No conversation is held here: send all of its messages.")] = None


class CountBody(Conversing):
    """POST /v1/messages/count_tokens"""


class BatchedMessage(Shape):
    custom_id: Annotated[
        str,
        Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$"),
        Honoured("The name of the request among the results; each is there once."),
    ]
    params: Annotated[
        JsonObject, Honoured("As of `/v1/messages`, without `stream`. What is wrong with it is told in its result.")
    ]


class MessageBatchBody(Shape):
    """POST /v1/messages/batches"""

    requests: Annotated[
        list[BatchedMessage],
        Field(min_length=1, max_length=MAX_LINES),
        Honoured("The requests, for one model or several. They are answered behind interactive work."),
    ]
    user_profile_id: Annotated[str | None, Reported(USER_MEANING)] = None
    workspace_id: Annotated[str | None, Reported("There are no workspaces.")] = None


class FileUploadForm(Shape):
    """POST /v1/files, with `anthropic-version`"""

    expires_in_seconds: Annotated[
        FormInteger | None,
        Field(ge=3600, le=90 * 24 * 3600),
        Honoured("When it goes. Without it, it stays until it is deleted."),
    ] = None


BODIES: tuple[type[Shape], ...] = (MessagesBody, CountBody, MessageBatchBody, FileUploadForm)
