"""The items of a conversation: their contract. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import Discriminator, Field, Tag

from puna.server.contract.shapes import UNION, Honoured, JsonObject, JsonValue, Reported, Shape
from puna.server.responses.hosted import HostedItem
from puna.server.responses.pieces import ItemContent, ReasoningText, SummaryText, ToolOutput

ItemId: TypeAlias = Annotated[str, Field(min_length=1, max_length=128)]
CallId: TypeAlias = Annotated[str, Field(min_length=1, max_length=128)]
ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]

_ID = Honoured("Its id, kept where the item is listed.")
_STATUS = Honoured("Kept where the item is listed.")
_CALLER = Reported("Every call here is the model's own.", harmless=({"type": "direct"},))
_NAMESPACE = Honoured("The namespace of the tool.")
_PARSE_ERROR = Honoured("Of an earlier answer: why a call could not be read.")
_CALL_ID = Honoured("The call's id, which its output answers.")


class MessageItem(Shape):
    type: Literal["message"] = "message"
    role: Annotated[
        Literal["user", "assistant", "system", "developer"],
        Honoured("Who speaks. A developer message is a system message."),
    ]
    content: Annotated[
        ItemContent,
        Honoured(
            "Text, or parts: input_text, output_text and refusal; of a user input_image, input_file, input_audio."
        ),
    ]
    id: Annotated[ItemId | None, _ID] = None
    status: Annotated[ItemStatus | None, _STATUS] = None
    phase: Annotated[
        Literal["commentary", "final_answer"] | None, Reported("Models here do not tell phases apart.")
    ] = None
    tool_call_parse_error: Annotated[str | None, _PARSE_ERROR] = None


class FunctionCallItem(Shape):
    type: Literal["function_call"]
    call_id: Annotated[CallId, _CALL_ID]
    name: Annotated[str, Honoured("Its name.")]
    arguments: Annotated[
        str,
        Honoured(
            "JSON text of an object. Of a call that was cut, its beginning: given to the model as text, and named in "
            "`x-puna-ignored`."
        ),
    ]
    id: Annotated[ItemId | None, _ID] = None
    status: Annotated[ItemStatus | None, _STATUS] = None
    parsed_arguments: Annotated[JsonValue, Reported("What a client read out of `arguments`, which counts.")] = None
    caller: Annotated[JsonObject | None, _CALLER] = None
    namespace: Annotated[str | None, _NAMESPACE] = None
    tool_call_parse_error: Annotated[str | None, _PARSE_ERROR] = None
    async_: Annotated[bool | None, Field(alias="async"), Reported("Calls wait.", harmless=(False,))] = None


class FunctionOutputItem(Shape):
    type: Literal["function_call_output"]
    call_id: Annotated[CallId, Honoured("The call it answers; must be one of the conversation's.")]
    output: Annotated[ToolOutput, Honoured("The result: text, or parts.")]
    id: Annotated[ItemId | None, _ID] = None
    status: Annotated[ItemStatus | None, _STATUS] = None
    name: Annotated[str | None, Reported("The call says it.")] = None
    caller: Annotated[JsonObject | None, _CALLER] = None
    namespace: Annotated[str | None, Reported("The call says it.")] = None


class CustomCallItem(Shape):
    type: Literal["custom_tool_call"]
    call_id: Annotated[CallId, _CALL_ID]
    name: Annotated[str, Honoured("Its name.")]
    input: Annotated[str, Honoured("Free text.")]
    id: Annotated[ItemId | None, _ID] = None
    status: Annotated[ItemStatus | None, _STATUS] = None
    caller: Annotated[JsonObject | None, _CALLER] = None
    namespace: Annotated[str | None, _NAMESPACE] = None
    tool_call_parse_error: Annotated[str | None, _PARSE_ERROR] = None
    async_: Annotated[bool | None, Field(alias="async"), Reported("Calls wait.", harmless=(False,))] = None


class CustomOutputItem(Shape):
    type: Literal["custom_tool_call_output"]
    call_id: Annotated[CallId, Honoured("The call it answers; must be one of the conversation's.")]
    output: Annotated[ToolOutput, Honoured("The result: text, or parts.")]
    id: Annotated[ItemId | None, _ID] = None
    status: Annotated[ItemStatus | None, _STATUS] = None
    caller: Annotated[JsonObject | None, _CALLER] = None


class ReasoningItem(Shape):
    type: Literal["reasoning"]
    id: Annotated[ItemId | None, _ID] = None
    content: Annotated[list[ReasoningText] | None, Honoured("The thought, for templates that want it.")] = None
    summary: Annotated[
        list[SummaryText] | None, Honoured("What the model is given where there is neither content nor our seal.")
    ] = None
    encrypted_content: Annotated[
        str | None,
        Honoured("The thought, as this server gave it. Another server's cannot be read: named in `x-puna-ignored`."),
    ] = None
    status: Annotated[ItemStatus | None, _STATUS] = None


class CompactionItem(Shape):
    type: Literal["compaction"]
    encrypted_content: Annotated[str, Honoured("What `/v1/responses/compact` gave. Another server's is refused.")]
    id: Annotated[ItemId | None, _ID] = None


class ItemReference(Shape):
    type: Literal["item_reference"] = "item_reference"
    id: Annotated[ItemId, Honoured("An item of this request, of its conversation, or of a stored response.")]


class HostedCallItem(Shape):
    type: HostedItem
    id: Annotated[ItemId | None, _ID] = None


_HOSTED: tuple[str, ...] = HostedItem.__origin__.__args__  # type: ignore[attr-defined]
_OWN = frozenset(
    {
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "reasoning",
        "compaction",
        "item_reference",
    }
)


def _kind(value: object) -> str | None:
    """The type of an item. A message needs none, nor does a reference."""
    if isinstance(value, Shape):
        type_: Any = getattr(value, "type", None)
    elif isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        type_ = fields.get("type")
        if type_ is None:
            type_ = (
                "item_reference" if "role" not in fields and "content" not in fields and "id" in fields else "message"
            )
    else:
        return None
    if not isinstance(type_, str):
        return None
    if type_ in _HOSTED:
        return "hosted"
    return type_ if type_ in _OWN else None


InputItem: TypeAlias = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[CustomCallItem, Tag("custom_tool_call")]
    | Annotated[CustomOutputItem, Tag("custom_tool_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[CompactionItem, Tag("compaction")]
    | Annotated[ItemReference, Tag("item_reference")]
    | Annotated[HostedCallItem, Tag("hosted")],
    Discriminator(
        _kind,
        custom_error_type=UNION,
        custom_error_message=(
            "an item: a message, function_call, function_call_output, custom_tool_call, custom_tool_call_output, "
            "reasoning, compaction or item_reference"
        ),
    ),
]
"""One item."""


def _text_or_items(value: object) -> str | None:
    return "items" if isinstance(value, list) else "text" if isinstance(value, str) else None


Input: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[InputItem], Tag("items")],
    Discriminator(_text_or_items, custom_error_type=UNION, custom_error_message="a string or an array of items"),
]
