"""The contract of each endpoint: every field that a request may have, its bounds, and what becomes of it. Data only."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic_core import PydanticKnownError

from puna.server.contract.shapes import UNION, Honoured, JsonObject, JsonValue, Refused, Reported, Shape, TokenId
from puna.server.openai.decisions import DecisionBody
from puna.server.openai.messages import ConversationMessage
from puna.server.openai.options import USER_MEANING, Extras, Sampled
from puna.server.openai.output import Formatted
from puna.server.openai.parts import TextContent
from puna.server.openai.rerank import RerankBody, ScoreBody, TextsRankBody
from puna.server.openai.thinking import Thinking
from puna.server.openai.tools import Tooled, ToolSpec


def _prompt_form(value: object) -> str | None:
    """The form of a prompt or an input, told by the first item of an array."""
    match value:
        case str():
            return "text"
        case [] | [str(), *_]:
            return "texts"
        case [bool(), *_]:
            return None
        case [int(), *_]:
            return "tokens"
        case [list(), *_]:
            return "token arrays"
        case _:
            return None


_PROMPT_FORMS = Discriminator(
    _prompt_form,
    custom_error_type=UNION,
    custom_error_message="a string, an array of strings, an array of token ids or an array of arrays of token ids",
)
_Tokens = Annotated[list[TokenId], Field(min_length=1)]

Prompts: TypeAlias = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[str], Field(min_length=1, max_length=2048), Tag("texts")]
    | Annotated[_Tokens, Tag("tokens")]
    | Annotated[list[_Tokens], Field(min_length=1, max_length=2048), Tag("token arrays")],
    _PROMPT_FORMS,
]
_Text = Annotated[str, Field(min_length=1)]
Inputs: TypeAlias = Annotated[
    Annotated[_Text, Tag("text")]
    | Annotated[list[_Text], Field(min_length=1, max_length=2048), Tag("texts")]
    | Annotated[_Tokens, Tag("tokens")]
    | Annotated[list[_Tokens], Field(min_length=1, max_length=2048), Tag("token arrays")],
    _PROMPT_FORMS,
]


def _no_zero(limit: int) -> int:
    if limit == 0:
        raise PydanticKnownError("greater_than_equal", {"ge": 1})
    return limit


TokenLimit: TypeAlias = Annotated[int, Field(ge=-1, le=2**31 - 1), AfterValidator(_no_zero)]
"""Local servers' clients write -1 for no limit."""

_CACHE_KEY = (
    "Requests of one key meet the same cached beginning: on llama.cpp they return to the slot that the key used last; "
    "the cpu engine finds every cached beginning by its content, with any key or none."
)
_NO_TIERS = "There is one tier: the answer says `default`."


Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class PredictedContent(Shape):
    type: Literal["content"]
    content: Annotated[TextContent, Honoured("The text; several parts are one text.")]


class ChatCompletionBody(Sampled, Formatted, Tooled, Thinking):
    """POST /v1/chat/completions"""

    model: Annotated[str, Field(min_length=1), Honoured("A Name, as `puna list` shows it.")]
    messages: Annotated[list[ConversationMessage], Field(min_length=1), Honoured("The conversation.")]
    max_completion_tokens: Annotated[
        TokenLimit | None, Honoured("How many tokens at most, thinking included; -1: no limit but the context.")
    ] = None
    max_tokens: Annotated[TokenLimit | None, Honoured("The deprecated name; must agree when both are given.")] = None
    logprobs: Annotated[bool | None, Honoured("One entry per generated token of text or thinking.")] = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20), Honoured("Alternatives per token. Needs `logprobs`.")] = (
        None
    )
    prompt_cache_key: Annotated[str | None, Field(max_length=1024), Honoured(_CACHE_KEY)] = None
    service_tier: Annotated[
        Literal["auto", "default", "flex", "scale", "priority", "fast"] | None,
        Reported(_NO_TIERS, harmless=("auto", "default")),
    ] = None
    store: Annotated[
        bool | None,
        Honoured(
            "The answer is kept, with its messages, for who has this key. Reported where the server keeps nothing."
        ),
    ] = None
    metadata: Annotated[Metadata | None, Honoured("Kept with a stored answer; reported where none is stored.")] = None
    safety_identifier: Annotated[str | None, Field(max_length=128), Reported(USER_MEANING)] = None
    prompt_cache_retention: Annotated[
        Literal["in_memory", "in-memory", "24h"] | None, Reported("The cache lasts as long as the model is loaded.")
    ] = None
    prompt_cache_options: Annotated[JsonObject | None, Reported("The prompt's cache needs no options.")] = None
    prediction: Annotated[
        PredictedContent | None,
        Honoured(
            "What the answer is expected to hold: the cpu engine computes several tokens at once where it does. "
            "No answer changes by it. Reported on other engines, and with `PUNA_SPECULATION` off."
        ),
    ] = None
    verbosity: Annotated[
        Literal["low", "medium", "high"] | None, Reported("Models here have no such switch.", harmless=("medium",))
    ] = None
    modalities: Annotated[
        list[Literal["text", "audio"]] | None,
        Refused("Only ['text'] is: models here do not speak.", harmless=(["text"], [])),
    ] = None
    audio: Annotated[JsonValue, Refused("Models here do not speak.")] = None
    web_search_options: Annotated[JsonValue, Refused("This server does not search the web.")] = None
    moderation: Annotated[JsonValue, Refused("This server does not moderate.")] = None
    chat_template_kwargs: Annotated[JsonObject | None, Honoured("More variables for the model's template.")] = None
    continue_final_message: Annotated[
        bool | None, Honoured("The last message is the assistant's and is continued instead of answered.")
    ] = None
    add_generation_prompt: Annotated[
        bool | None, Honoured("The opposite of `continue_final_message`; false only together with it.")
    ] = None


class CompletionBody(Sampled):
    """POST /v1/completions"""

    model: Annotated[str, Field(min_length=1), Honoured("A Name, as `puna list` shows it.")]
    prompt: Annotated[
        Prompts | None,
        Honoured(
            "Continued as it is, without the chat template; text or token ids, one or many. "
            "Absent or empty: a new document, after the model's start token."
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        Field(ge=-1, le=2**31 - 1),
        Honoured("Default 16. -1: no limit but the context. 0: only with `echo`."),
    ] = None
    best_of: Annotated[
        int | None, Field(ge=1, le=20), Honoured("The `n` likeliest of so many answers. Not with `stream`.")
    ] = None
    echo: Annotated[bool | None, Honoured("The prompt comes before the answer, and is scored with `logprobs`.")] = None
    suffix: Annotated[str | None, Honoured("Fill in the middle, where the model can.")] = None
    logprobs: Annotated[int | None, Field(ge=0, le=5), Honoured("So many alternatives per token.")] = None
    prompt_cache_key: Annotated[str | None, Field(max_length=1024), Honoured(_CACHE_KEY)] = None


class EmbeddingBody(Extras):
    """POST /v1/embeddings"""

    model: Annotated[str, Field(min_length=1), Honoured("A Name, as `puna list` shows it.")]
    input: Annotated[
        Inputs, Honoured("Text or token ids, one or up to 2048. An input over the model's limit is refused.")
    ]
    encoding_format: Annotated[Literal["float", "base64"] | None, Honoured("base64: little-endian float32.")] = None
    dimensions: Annotated[
        int | None, Field(ge=1, le=2**31 - 1), Honoured("So many first numbers of each vector, normalised again.")
    ] = None
    user: Annotated[str | None, Reported(USER_MEANING)] = None


class TokenizeBody(Shape):
    """POST /tokenize"""

    model: Annotated[
        str | None, Field(min_length=1), Honoured("May be absent when only one model is loaded or stored.")
    ] = None
    prompt: Annotated[str | None, Honoured("vLLM's form: text.")] = None
    content: Annotated[str | None, Honoured("llama.cpp's form: text.")] = None
    messages: Annotated[
        list[ConversationMessage] | None,
        Field(min_length=1),
        Honoured("vLLM's other form: a chat, counted without running it."),
    ] = None
    tools: Annotated[list[ToolSpec] | None, Honoured("With `messages`: tools to count.")] = None
    add_special_tokens: Annotated[
        bool | None, Honoured("Begin with the model's start token, if it has one. Default true.")
    ] = None
    add_special: Annotated[bool | None, Honoured("The same in llama.cpp's form. Default false.")] = None
    parse_special: Annotated[bool | None, Honoured("Text of control tokens becomes these. Default true.")] = None
    with_pieces: Annotated[bool | None, Refused("Ask /detokenize for the text of a token.", harmless=(False,))] = None
    return_token_strs: Annotated[
        bool | None, Refused("Ask /detokenize for the text of a token.", harmless=(False,))
    ] = None
    add_generation_prompt: Annotated[
        bool | None, Refused("A chat is counted as it would be answered.", harmless=(True,))
    ] = None
    chat_template_kwargs: Annotated[
        JsonObject | None, Honoured("With `messages`: more variables for the template.")
    ] = None


class DetokenizeBody(Shape):
    """POST /detokenize"""

    model: Annotated[
        str | None, Field(min_length=1), Honoured("May be absent when only one model is loaded or stored.")
    ] = None
    tokens: Annotated[list[TokenId], Honoured("The ids.")]


class StoredChatBody(Shape):
    """POST /v1/chat/completions/{id}"""

    metadata: Annotated[Metadata | None, Honoured("Takes the place of all that it has; null: none.")] = None


OBJECT_BODIES: tuple[type[Shape], ...] = (StoredChatBody,)
"""Of requests to one object that is there already."""

BODIES: tuple[type[Shape], ...] = (
    ChatCompletionBody,
    CompletionBody,
    EmbeddingBody,
    DecisionBody,
    RerankBody,
    TextsRankBody,
    ScoreBody,
    TokenizeBody,
    DetokenizeBody,
)
