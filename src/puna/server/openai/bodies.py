"""The contract of each endpoint: every field that a request may have, its bounds, and what becomes of it. Data only."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from puna.server.openai.contract import Honoured, Int64, JsonValue, Refused, Reported, Shape
from puna.server.openai.invalid import UNION
from puna.server.openai.messages import (
    FunctionChoice,
    FunctionSpec,
    JsonObject,
    Message,
    ResponseFormat,
    StructuredOutputs,
    Tool,
    ToolChoice,
)

TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
StopString = Annotated[str, Field(min_length=1)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


def _string_or_array(value: object) -> str | None:
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else None


Stop: TypeAlias = Annotated[
    Annotated[StopString, Tag("string")] | Annotated[list[StopString], Field(max_length=4), Tag("array")],
    Discriminator(_string_or_array, custom_error_type=UNION, custom_error_message="a string or an array of strings"),
]


def _string_or_number(value: object) -> str | None:
    if isinstance(value, bool):
        return None
    return "string" if isinstance(value, str) else "number" if isinstance(value, int | float) else None


KeepAlive: TypeAlias = Annotated[
    Annotated[str, Tag("string")] | Annotated[float, Tag("number")],
    Discriminator(_string_or_number, custom_error_type=UNION, custom_error_message="a number of seconds or a duration"),
]


def _switch_or_level(value: object) -> str | None:
    return "switch" if isinstance(value, bool) else "level" if isinstance(value, str) else None


ThinkSetting: TypeAlias = Annotated[
    Annotated[bool, Tag("switch")] | Annotated[Literal["minimal", "low", "medium", "high", "max"], Tag("level")],
    Discriminator(_switch_or_level, custom_error_type=UNION, custom_error_message="a boolean or a level"),
]


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


class StreamOptions(Shape):
    include_usage: Annotated[bool | None, Honoured("A last chunk with the usage of all choices.")] = None
    include_obfuscation: Annotated[
        bool | None, Honoured("Pads each chunk with random text. Off unless asked for: this server is on your machine.")
    ] = None


_CACHE_KEY = (
    "Requests of one key meet the same cached beginning: on llama.cpp they return to the slot that the key used last; "
    "the cpu engine finds every cached beginning by its content, with any key or none."
)
_NO_TIERS = "There is one tier: the answer says `default`."
_USER_MEANING = "Nothing here tells users apart."


class Extras(Shape):
    """What clients of local servers send besides OpenAI's fields; the Python client through `extra_body`."""

    options: Annotated[JsonObject | None, Honoured("Ollama's options. A field of the request wins over them.")] = None
    keep_alive: Annotated[
        KeepAlive | None,
        Honoured("How long the model stays loaded: seconds, or a duration such as `5m`; negative: for ever."),
    ] = None
    num_ctx: Annotated[
        int | None, Field(ge=1, le=2**31 - 1), Honoured("The context to load the model with, in tokens.")
    ] = None


class Sampled(Extras):
    """Fields of every endpoint that generates."""

    temperature: Annotated[
        float | None,
        Field(ge=0, le=2),
        Honoured("Absent: as the model's own parameters say. 0: always the likeliest token."),
    ] = None
    top_p: Annotated[float | None, Field(ge=0, le=1), Honoured("Nucleus sampling.")] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2), Honoured("Against frequent tokens.")] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2), Honoured("Against tokens that were there.")] = None
    logit_bias: Annotated[
        dict[str, Annotated[float, Field(ge=-100, le=100)]] | None,
        Honoured("Token id to a bias from -100 (never) to 100 (always)."),
    ] = None
    seed: Annotated[
        Int64 | None,
        Honoured("The same seed gives the same answer; header `x-puna-seed` says `exact` or `best-effort`."),
    ] = None
    stop: Annotated[Stop | None, Honoured("Up to 4 strings that end the answer and are not part of it.")] = None
    n: Annotated[int | None, Field(ge=1, le=128), Honoured("How many answers.")] = None
    stream: Annotated[bool | None, Honoured("Server-sent events.")] = None
    stream_options: Annotated[StreamOptions | None, Honoured("Only with `stream`.")] = None
    user: Annotated[str | None, Reported(_USER_MEANING)] = None
    top_k: Annotated[int | None, Field(ge=0, le=2**31 - 1), Honoured("Only the k likeliest tokens; 0: all.")] = None
    min_p: Annotated[
        float | None, Field(ge=0, le=1), Honoured("Only tokens at least this likely, the likeliest being 1.")
    ] = None
    typical_p: Annotated[float | None, Field(ge=0, le=1), Honoured("Locally typical sampling; 1: off.")] = None
    repeat_penalty: Annotated[float | None, Field(ge=0.01, le=100), Honoured("Against repeated tokens; 1: off.")] = None
    repetition_penalty: Annotated[
        float | None, Field(ge=0.01, le=100), Honoured("Another name of `repeat_penalty`.")
    ] = None
    repeat_last_n: Annotated[
        int | None, Field(ge=-1, le=2**31 - 1), Honoured("How many tokens back penalties look; -1: all of the context.")
    ] = None
    mirostat: Annotated[int | None, Field(ge=0, le=2), Honoured("Mirostat version; 0: off.")] = None
    mirostat_tau: Annotated[float | None, Field(ge=0, le=100), Honoured("Mirostat's target.")] = None
    mirostat_eta: Annotated[float | None, Field(ge=0, le=100), Honoured("Mirostat's rate.")] = None
    ignore_eos: Annotated[bool | None, Honoured("Go on after an end-of-answer token.")] = None
    grammar: Annotated[str | None, Honoured("The answer matches this grammar (llama.cpp's GBNF).")] = None
    json_schema: Annotated[JsonObject | None, Honoured("The answer is JSON that satisfies this schema.")] = None
    guided_json: Annotated[
        JsonObject | str | None, Honoured("The same, under vLLM's old name; an object or its text.")
    ] = None
    guided_regex: Annotated[str | None, Honoured("The answer matches this regular expression.")] = None
    guided_choice: Annotated[list[str] | None, Field(min_length=1), Honoured("The answer is one of these.")] = None
    guided_grammar: Annotated[str | None, Honoured("Another name of `grammar`.")] = None
    structured_outputs: Annotated[StructuredOutputs | None, Honoured("vLLM's new name for the same.")] = None


class ReasoningSetting(Shape):
    effort: Annotated[Effort | None, Honoured("As `reasoning_effort`.")] = None


class ChatCompletionBody(Sampled):
    """POST /v1/chat/completions"""

    model: Annotated[str, Field(min_length=1), Honoured("A Name, as `puna list` shows it.")]
    messages: Annotated[list[Message], Field(min_length=1), Honoured("The conversation.")]
    max_completion_tokens: Annotated[
        int | None, Field(ge=1, le=2**31 - 1), Honoured("How many tokens at most, thinking included.")
    ] = None
    max_tokens: Annotated[
        int | None, Field(ge=1, le=2**31 - 1), Honoured("The deprecated name; must agree when both are given.")
    ] = None
    logprobs: Annotated[bool | None, Honoured("One entry per generated token of text or thinking.")] = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20), Honoured("Alternatives per token. Needs `logprobs`.")] = (
        None
    )
    response_format: Annotated[
        ResponseFormat | None, Honoured("text, json_object or json_schema, enforced while generating.")
    ] = None
    tools: Annotated[
        list[Tool] | None, Field(max_length=128), Honoured("Function and custom tools, with every model.")
    ] = None
    tool_choice: Annotated[
        ToolChoice | None,
        Honoured("none, auto, required, one named tool, or allowed_tools; enforced while generating."),
    ] = None
    parallel_tool_calls: Annotated[
        bool | None, Honoured("Default true; false: at most one call. A named tool is called once in any case.")
    ] = None
    functions: Annotated[
        list[FunctionSpec] | None, Field(min_length=1, max_length=128), Honoured("The deprecated form of `tools`.")
    ] = None
    function_call: Annotated[FunctionChoice | None, Honoured("The deprecated form of `tool_choice`.")] = None
    reasoning_effort: Annotated[Effort | None, Honoured("How much a thinking model thinks; none: not at all.")] = None
    prompt_cache_key: Annotated[str | None, Field(max_length=1024), Honoured(_CACHE_KEY)] = None
    service_tier: Annotated[
        Literal["auto", "default", "flex", "scale", "priority", "fast"] | None,
        Reported(_NO_TIERS, harmless=("auto", "default")),
    ] = None
    store: Annotated[bool | None, Reported("Answers are not stored.", harmless=(False,))] = None
    metadata: Annotated[
        dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None,
        Field(max_length=16),
        Reported("Belongs to stored answers.", harmless=({},)),
    ] = None
    safety_identifier: Annotated[str | None, Field(max_length=128), Reported(_USER_MEANING)] = None
    prompt_cache_retention: Annotated[
        Literal["in_memory", "in-memory", "24h"] | None, Reported("The cache lasts as long as the model is loaded.")
    ] = None
    prompt_cache_options: Annotated[JsonObject | None, Reported("The prompt's cache needs no options.")] = None
    prediction: Annotated[JsonObject | None, Reported("No speculation is made from it.")] = None
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
    think: Annotated[ThinkSetting | None, Honoured("Ollama's form of `reasoning_effort`; false: no thinking.")] = None
    reasoning: Annotated[ReasoningSetting | None, Honoured("Another form of `reasoning_effort`.")] = None
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
        Prompts, Honoured("Continued as it is, without the chat template; text or token ids, one or many.")
    ]
    max_tokens: Annotated[int | None, Field(ge=0, le=2**31 - 1), Honoured("Default 16. 0: only with `echo`.")] = None
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
    user: Annotated[str | None, Reported(_USER_MEANING)] = None


class TokenizeBody(Shape):
    """POST /tokenize"""

    model: Annotated[
        str | None, Field(min_length=1), Honoured("May be absent when only one model is loaded or stored.")
    ] = None
    prompt: Annotated[str | None, Honoured("vLLM's form: text.")] = None
    content: Annotated[str | None, Honoured("llama.cpp's form: text.")] = None
    messages: Annotated[
        list[Message] | None, Field(min_length=1), Honoured("vLLM's other form: a chat, counted without running it.")
    ] = None
    tools: Annotated[list[Tool] | None, Honoured("With `messages`: tools to count.")] = None
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


BODIES: tuple[type[Shape], ...] = (ChatCompletionBody, CompletionBody, EmbeddingBody, TokenizeBody, DetokenizeBody)
