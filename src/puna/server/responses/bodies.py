"""The contract of each endpoint: every field that a request may have, its bounds, and what becomes of it. Data only."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from puna.server.contract.shapes import UNION, Honoured, JsonObject, JsonValue, Refused, Reported, Shape
from puna.server.openai.bodies import Metadata
from puna.server.openai.options import USER_MEANING, Drawing
from puna.server.openai.output import JsonObjectFormat, TextFormat
from puna.server.openai.thinking import Budget, Effort
from puna.server.openai.tools import StandardName
from puna.server.responses.items import Input, InputItem
from puna.server.responses.tools import Equipped

Includable: TypeAlias = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]
ModelName: TypeAlias = Annotated[str, Field(min_length=1)]
ObjectId: TypeAlias = Annotated[str, Field(min_length=1, max_length=128)]

ServiceTier: TypeAlias = Literal["auto", "default", "flex", "scale", "priority", "fast"]

_MODEL = Honoured("A Name, as `puna list` shows it.")
_CACHE_KEY = Honoured("Requests of one key meet the same cached beginning, as in /v1/chat/completions.")
_RETENTION = Reported("The cache lasts as long as the model is loaded.")
_CACHE_OPTIONS = Reported("The prompt's cache needs no options.")
_TIER = Reported("There is one tier: the answer says `default`.", harmless=("auto", "default"))
_IMAGE = Reported("Images are always read as the model reads them.", harmless=({}, {"context_compression": "auto"}))

ITEMS_AT_ONCE = 20
"""Items that a conversation takes in one request, as OpenAI's do."""


class FlatSchemaFormat(Shape):
    type: Literal["json_schema"]
    name: Annotated[StandardName, Honoured("A name for it.")]
    schema_: Annotated[JsonObject, Field(alias="schema"), Honoured("The schema.")]
    strict: Annotated[
        bool | None, Honoured("The schema must keep OpenAI's strict rules. It is enforced in any case.")
    ] = None
    description: Annotated[str | None, Reported("The schema is enforced; it is not described to the model.")] = None


class TextSettings(Shape):
    format: Annotated[
        Annotated[TextFormat | JsonObjectFormat | FlatSchemaFormat, Field(discriminator="type")] | None,
        Honoured("text, json_object or json_schema, enforced while generating."),
    ] = None
    verbosity: Annotated[
        Literal["low", "medium", "high"] | None, Reported("Models here have no such switch.", harmless=("medium",))
    ] = None


class ReasoningSettings(Shape):
    effort: Annotated[Effort | None, Honoured("How much a thinking model thinks; none: not at all.")] = None
    summary: Annotated[
        Literal["auto", "concise", "detailed"] | None,
        Honoured(
            "The thought itself is told as its summary: nothing here makes it shorter. Absent: it is told as "
            "`reasoning_text`."
        ),
    ] = None
    generate_summary: Annotated[
        Literal["auto", "concise", "detailed"] | None, Honoured("The deprecated name of `summary`.")
    ] = None
    context: Annotated[
        Literal["auto", "current_turn", "all_turns"] | None,
        Reported("Which earlier thoughts count is the template's to say.", harmless=("auto",)),
    ] = None
    mode: Annotated[str | None, Reported("There is one mode.", harmless=("standard",))] = None


class ResponseStreamOptions(Shape):
    include_obfuscation: Annotated[
        bool | None, Honoured("Pads each delta with random text. Off unless asked for: this server is on your machine.")
    ] = None


class ConversationId(Shape):
    id: Annotated[ObjectId, Honoured("The conversation's id.")]


def _id_or_object(value: object) -> str | None:
    return "id" if isinstance(value, str) else "object" if isinstance(value, dict | Shape) else None


AnyConversation: TypeAlias = Annotated[
    Annotated[ObjectId, Tag("id")] | Annotated[ConversationId, Tag("object")],
    Discriminator(_id_or_object, custom_error_type=UNION, custom_error_message="an id or an object with an id"),
]


class Continuing(Shape):
    """What there is to answer, and what it goes on from."""

    input: Annotated[
        Input | None, Honoured("Text, or items: messages, calls and their outputs, reasoning, references.")
    ] = None
    instructions: Annotated[
        str | None, Honoured("A system message before all others, of this response only: no later one inherits it.")
    ] = None
    previous_response_id: Annotated[
        ObjectId | None, Honoured("The stored response that this one goes on from, with all before it.")
    ] = None


class Asking(Equipped, Continuing):
    """What makes the prompt of a response."""

    conversation: Annotated[
        AnyConversation | None,
        Honoured("Its items come first; input and output are added to it. Not with `previous_response_id`."),
    ] = None
    text: Annotated[TextSettings | None, Honoured("The format of the answer.")] = None
    reasoning: Annotated[ReasoningSettings | None, Honoured("How much to think, and how it is told.")] = None
    truncation: Annotated[
        Literal["auto", "disabled"] | None,
        Honoured("auto: old turns that do not fit are left out, and counted in `x-puna-truncated`. Default disabled."),
    ] = None


class ResponseBody(Asking, Drawing):
    """POST /v1/responses"""

    model: Annotated[ModelName, _MODEL]
    stream: Annotated[bool | None, Honoured("Server-sent events.")] = None
    stream_options: Annotated[ResponseStreamOptions | None, Honoured("Only with `stream`.")] = None
    store: Annotated[
        bool | None, Honoured("Default true: kept for `previous_response_id` and to be fetched; false: not.")
    ] = None
    background: Annotated[
        bool | None,
        Honoured("Answered at once; the work goes on, and is polled, followed or cancelled. Needs `store`."),
    ] = None
    include: Annotated[
        list[Includable] | None,
        Honoured(
            "message.output_text.logprobs and reasoning.encrypted_content. Images of input are always included; of "
            "the others there are none here."
        ),
    ] = None
    max_output_tokens: Annotated[
        int | None,
        Field(ge=1, le=2**31 - 1),
        Honoured("How many tokens at most, thinking included. Under 16, which OpenAI refuses: `x-puna-nonstandard`."),
    ] = None
    max_tool_calls: Annotated[
        int | None,
        Field(ge=1, le=2**31 - 1),
        Honoured("How often tools that the server runs are called at most. It has none, so there are never more."),
    ] = None
    reasoning_budget_tokens: Annotated[
        Budget | None,
        Honoured("So many tokens of thinking at most: then the thought is closed and the answer goes on. 0: none."),
    ] = None
    top_logprobs: Annotated[
        int | None, Field(ge=0, le=20), Honoured("Alternatives per token, with the log-probabilities they are told in.")
    ] = None
    metadata: Annotated[Metadata | None, Honoured("Kept with the response.")] = None
    prompt_cache_key: Annotated[str | None, Field(max_length=1024), _CACHE_KEY] = None
    prompt_cache_retention: Annotated[Literal["in_memory", "in-memory", "24h"] | None, _RETENTION] = None
    prompt_cache_options: Annotated[JsonObject | None, _CACHE_OPTIONS] = None
    service_tier: Annotated[ServiceTier | None, _TIER] = None
    user: Annotated[str | None, Reported(USER_MEANING)] = None
    safety_identifier: Annotated[str | None, Field(max_length=128), Reported(USER_MEANING)] = None
    background_options: Annotated[
        JsonObject | None,
        Reported(
            "Work in the background is done as soon as it can be.", harmless=({}, {"completion_window": "soonest"})
        ),
    ] = None
    access_programs: Annotated[JsonObject | None, Reported("There are no programs of access.")] = None
    image: Annotated[JsonObject | None, _IMAGE] = None
    context_management: Annotated[
        JsonValue, Refused("Nothing is compacted by itself: call /v1/responses/compact.", harmless=([],))
    ] = None
    prompt: Annotated[JsonValue, Refused("No prompts are stored here: send the input.")] = None
    moderation: Annotated[JsonValue, Refused("This server does not moderate.")] = None


class InputTokensBody(Asking):
    """POST /v1/responses/input_tokens"""

    model: Annotated[ModelName, _MODEL]
    personality: Annotated[str | None, Reported("Models here have one.")] = None


class CompactBody(Continuing):
    """POST /v1/responses/compact"""

    model: Annotated[ModelName, Honoured("The model that writes the summary.")]
    prompt_cache_key: Annotated[str | None, Field(max_length=1024), _CACHE_KEY] = None
    prompt_cache_retention: Annotated[Literal["in_memory", "in-memory", "24h"] | None, _RETENTION] = None
    prompt_cache_options: Annotated[JsonObject | None, _CACHE_OPTIONS] = None
    service_tier: Annotated[ServiceTier | None, _TIER] = None
    image: Annotated[JsonObject | None, _IMAGE] = None


class ConversationBody(Shape):
    """POST /v1/conversations"""

    items: Annotated[list[InputItem] | None, Field(max_length=ITEMS_AT_ONCE), Honoured("What it begins with.")] = None
    metadata: Annotated[Metadata | None, Honoured("Kept with it.")] = None


class ConversationUpdateBody(Shape):
    """POST /v1/conversations/{id}"""

    metadata: Annotated[Metadata | None, Honoured("Takes the place of all that it has; null: none.")] = None


class ConversationItemsBody(Shape):
    """POST /v1/conversations/{id}/items"""

    items: Annotated[
        list[InputItem],
        Field(min_length=1, max_length=ITEMS_AT_ONCE),
        Honoured("Added at its end, with ids of its own."),
    ]


BODIES: tuple[type[Shape], ...] = (
    ResponseBody,
    InputTokensBody,
    CompactBody,
    ConversationBody,
    ConversationUpdateBody,
    ConversationItemsBody,
)
