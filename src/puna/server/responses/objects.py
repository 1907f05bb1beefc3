"""The response object, and items as they are listed. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from puna.errors import InvalidRequest, NotFound, PunaError, TooManyRequests
from puna.server.contract.shapes import Shape
from puna.server.responses.bodies import AnyConversation, ConversationId, ResponseBody
from puna.server.responses.ids import ResponseIds
from puna.server.responses.items import CompactionItem, Input, InputItem, ItemReference, MessageItem, ReasoningItem
from puna.server.responses.pieces import InputImage, OutputText
from puna.server.responses.thought import sealed
from puna.server.responses.tools import FlatCustom, FlatFunction
from puna.types import JsonObject, JsonValue, Options, Usage

Status: TypeAlias = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

UNDER_WAY = frozenset({"queued", "in_progress"})
"""States that another follows."""

ENCRYPTED = "reasoning.encrypted_content"
"""What `include` calls the seal of a thought."""


def conversation_id(conversation: AnyConversation | None) -> str | None:
    return conversation.id if isinstance(conversation, ConversationId) else conversation


# ------------------------------------------------------------------------------------------------------- a response


@dataclass(frozen=True, slots=True)
class Draft:
    """What a response says whatever becomes of it. `said`: what it repeats of its request."""

    id: str
    created: int
    said: JsonObject

    def json(
        self,
        status: Status,
        output: Sequence[JsonValue] = (),
        *,
        usage: Usage | None = None,
        error: PunaError | None = None,
        completed: int | None = None,
    ) -> JsonObject:
        """Every key of OpenAI's object."""
        cut: JsonObject | None = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "completed_at": completed,
            "error": None if error is None else error_json(error),
            "incomplete_details": cut,
            "output": list(output),
            "usage": None if usage is None else usage_json(usage),
            **self.said,
        }


def draft(body: ResponseBody, ids: ResponseIds, created: int, options: Options, *, stored: bool) -> Draft:
    """`options`: those that count, with the model's own and the server's under the request's."""
    conversation = conversation_id(body.conversation)
    reasoning = body.reasoning
    summary = None if reasoning is None else reasoning.summary or reasoning.generate_summary
    text: JsonObject = {"format": {"type": "text"}, "verbosity": "medium"}
    if body.text is not None:
        text.update(_sent(body.text))
    said: JsonObject = {
        "background": bool(body.background),
        "conversation": None if conversation is None else {"id": conversation},
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": cast("JsonObject", body.metadata or {}),
        "model": body.model,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt": None,
        "prompt_cache_key": body.prompt_cache_key,
        "prompt_cache_options": body.prompt_cache_options,
        "prompt_cache_retention": body.prompt_cache_retention,
        "prompt_cache_diagnostics": None,
        "reasoning": {"effort": None if reasoning is None else reasoning.effort, "summary": summary},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": stored,
        "temperature": options.temperature,
        "text": text,
        "tool_choice": _sent(body.tool_choice) if isinstance(body.tool_choice, Shape) else body.tool_choice or "auto",
        "tools": [_tool_json(tool) for tool in body.tools or []],
        "tool_usage": None,
        "top_logprobs": body.top_logprobs or 0,
        "top_p": options.top_p,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "truncation": body.truncation or "disabled",
        "user": body.user,
        "access_programs": None,
        "image": None,
        "input_transformations": None,
        "moderation": None,
    }
    return Draft(ids.whole("resp"), created, said)


def _tool_json(tool: Shape) -> JsonObject:
    shown = _sent(tool)
    match tool:
        case FlatFunction():
            # Calls satisfy the schema in any case.
            return {"description": None, "parameters": None, "strict": True, **shown}
        case FlatCustom():
            return {"format": {"type": "text"}, **shown}
        case _:
            return shown


def _sent(shape: Shape) -> JsonObject:
    """A shape as the client wrote it, without nulls."""
    return cast("JsonObject", shape.model_dump(mode="json", by_alias=True, exclude_unset=True))


def usage_json(usage: Usage) -> JsonObject:
    """All that was read and not found in the cache is in it afterwards."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.prompt - usage.cached,
        },
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }


def error_json(error: PunaError) -> JsonObject:
    """In a response there are few codes."""
    match error:
        case TooManyRequests():
            code = "rate_limit_exceeded"
        case InvalidRequest() | NotFound():
            code = "invalid_prompt"
        case _:
            code = "server_error"
    return {"code": code, "message": error.message, "param": error.param, "type": error.type}


# ------------------------------------------------------------------------------------------------------------ items

PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
    "compaction": "cmp",
}
"""What the ids of each type of item begin with."""


def listed_input(given: Input | None, ids: ResponseIds) -> list[JsonObject]:
    """The items of an input as they are stored and listed. References, which are another's items, are left out."""
    if given is None:
        return []
    if isinstance(given, str):
        given = [MessageItem(role="user", content=given)]
    return [listed_item(item, ids) for item in given if not isinstance(item, ItemReference)]


def listed_item(item: InputItem, ids: ResponseIds, *, renamed: bool = False) -> JsonObject:
    """With its id (the client's, where it gave one and it is not to be `renamed`), its type and its status."""
    shown = _sent(item)
    given = shown.pop("id", None)
    shown.setdefault("status", "completed")
    if isinstance(item, CompactionItem):
        del shown["status"]
    if isinstance(item, ReasoningItem):
        shown.setdefault("summary", [])
    if isinstance(item, MessageItem):
        shown["content"] = _content(item)
    id_ = ids.next(PREFIXES[item.type]) if renamed or given is None else given
    return {**shown, "id": id_, "type": item.type}


def _content(item: MessageItem) -> list[JsonValue]:
    """The parts of a message, with every key that OpenAI's have."""
    if not isinstance(item.content, str):
        return [_part_json(part) for part in item.content]
    if item.role == "assistant":
        return [{"type": "output_text", "text": item.content, "annotations": [], "logprobs": []}]
    return [{"type": "input_text", "text": item.content}]


def _part_json(part: Shape) -> JsonObject:
    match part:
        case OutputText():
            return {"annotations": [], "logprobs": [], **_sent(part)}
        case InputImage():
            return {"detail": "auto", **_sent(part)}
        case _:
            return _sent(part)


def with_included(items: Sequence[JsonObject], include: Collection[str]) -> list[JsonValue]:
    """Items as a request that includes more shows them: the seals of their thoughts."""
    return [_sealed(item) if ENCRYPTED in include else item for item in items]


def _sealed(item: JsonObject) -> JsonObject:
    if item["type"] != "reasoning" or item.get("encrypted_content") is not None:
        return item
    parts = cast("list[JsonObject]", item.get("content") or item.get("summary") or [])
    return {**item, "encrypted_content": sealed("\n".join(str(part["text"]) for part in parts))}
