"""The contract of messages, tools and response formats. Data only; `convert` gives it meaning."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, cast

from pydantic import Discriminator, Field, Tag

from puna.server.openai.contract import Honoured, JsonValue, Refused, Reported, Shape
from puna.server.openai.invalid import UNION

JsonObject: TypeAlias = dict[str, JsonValue]


def _text_or_array(value: object) -> str | None:
    return "array" if isinstance(value, list) else "text" if isinstance(value, str) else None


_CONTENT = Discriminator(_text_or_array, custom_error_type=UNION, custom_error_message="a string or an array of parts")

# ---------------------------------------------------------------------------------------------------------- parts


class Part(Shape):
    prompt_cache_breakpoint: Annotated[
        JsonObject | None, Reported("Every prompt is cached as far as it was seen before.")
    ] = None


class TextPart(Part):
    type: Literal["text"]
    text: Annotated[str, Honoured("The text.")]


class RefusalPart(Shape):
    type: Literal["refusal"]
    refusal: Annotated[str, Honoured("A refusal of an earlier turn; given to the model as text.")]


class ImageUrl(Shape):
    url: Annotated[
        str,
        Honoured(
            "A data: URL (png, jpeg, or webp with the extra `webp`), or http(s), fetched within limits of size, time"
            " and address."
        ),
    ]
    detail: Annotated[
        Literal["auto", "low", "high", "original"] | None,
        Reported("Images are always read as the model reads them.", harmless=("auto",)),
    ] = None


def _url_or_object(value: object) -> str | None:
    return "url" if isinstance(value, str) else "object" if isinstance(value, dict | Shape) else None


ImageSource: TypeAlias = Annotated[
    Annotated[str, Tag("url")] | Annotated[ImageUrl, Tag("object")],
    Discriminator(_url_or_object, custom_error_type=UNION, custom_error_message="an object or a string"),
]


class ImagePart(Part):
    type: Literal["image_url"]
    image_url: Annotated[ImageSource, Honoured("The image, as OpenAI's object or as a bare URL.")]


class InputAudio(Shape):
    data: Annotated[str, Honoured("Base64.")]
    format: Annotated[Literal["wav", "mp3"], Honoured("Must be what the bytes are.")]


class AudioPart(Part):
    type: Literal["input_audio"]
    input_audio: Annotated[InputAudio, Honoured("Sound, for a model that hears.")]


class FileData(Shape):
    file_data: Annotated[
        str | None, Honoured("A data: URL of text, or of a PDF (with the extra `pdf`): its text is read.")
    ] = None
    filename: Annotated[str | None, Honoured("Stands before the text.")] = None
    file_id: Annotated[str | None, Refused("This server stores no files: send file_data.")] = None


class FilePart(Part):
    type: Literal["file"]
    file: Annotated[FileData, Honoured("A file whose text becomes part of the message.")]


UserPart: TypeAlias = Annotated[TextPart | ImagePart | AudioPart | FilePart, Field(discriminator="type")]
AssistantPart: TypeAlias = Annotated[TextPart | RefusalPart, Field(discriminator="type")]
OnlyText: TypeAlias = Annotated[TextPart, Field()]

TextContent: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[OnlyText], Field(min_length=1), Tag("array")], _CONTENT
]
UserContent: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[UserPart], Field(min_length=1), Tag("array")], _CONTENT
]
AssistantContent: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[AssistantPart], Field(min_length=1), Tag("array")], _CONTENT
]

# ------------------------------------------------------------------------------------------------------- messages

_SPEAKER = Honoured("The speaker's name, given to the model's template.")


class SystemMessage(Shape):
    role: Literal["system", "developer"]
    content: Annotated[TextContent, Honoured("The instructions. A developer message is a system message.")]
    name: Annotated[str | None, _SPEAKER] = None


class UserMessage(Shape):
    role: Literal["user"]
    content: Annotated[UserContent, Honoured("Text, or parts: text, image_url, input_audio, file.")]
    name: Annotated[str | None, _SPEAKER] = None


class CalledFunction(Shape):
    name: Annotated[str, Honoured("Its name.")]
    arguments: Annotated[str, Honoured("JSON text of an object.")]


class CalledCustom(Shape):
    name: Annotated[str, Honoured("Its name.")]
    input: Annotated[str, Honoured("Free text.")]


class PastFunctionCall(Shape):
    type: Literal["function"]
    id: Annotated[str, Honoured("The call's id, which a tool message answers.")]
    function: Annotated[CalledFunction, Honoured("The call.")]
    index: Annotated[int | None, Honoured("As streams give it; the order of the array counts.")] = None


class PastCustomCall(Shape):
    type: Literal["custom"]
    id: Annotated[str, Honoured("The call's id, which a tool message answers.")]
    custom: Annotated[CalledCustom, Honoured("The call.")]
    index: Annotated[int | None, Honoured("As streams give it; the order of the array counts.")] = None


PastCall: TypeAlias = Annotated[PastFunctionCall | PastCustomCall, Field(discriminator="type")]


class AssistantMessage(Shape):
    role: Literal["assistant"]
    content: Annotated[
        AssistantContent | None, Honoured("May be absent beside tool calls, a function call or a refusal.")
    ] = None
    refusal: Annotated[str | None, Honoured("A refusal of an earlier turn; given to the model as text.")] = None
    name: Annotated[str | None, _SPEAKER] = None
    tool_calls: Annotated[list[PastCall] | None, Honoured("Calls the model made.")] = None
    function_call: Annotated[CalledFunction | None, Honoured("The deprecated form of one call.")] = None
    reasoning_content: Annotated[str | None, Honoured("The thinking of that turn, for templates that want it.")] = None
    reasoning: Annotated[str | None, Honoured("The same under its other name.")] = None
    audio: Annotated[JsonValue, Refused("No audio of earlier turns is stored here.")] = None
    annotations: Annotated[
        JsonValue, Reported("Annotations of an earlier answer say nothing to the model.", harmless=([],))
    ] = None


class ToolMessage(Shape):
    role: Literal["tool"]
    content: Annotated[TextContent, Honoured("The result.")]
    tool_call_id: Annotated[str, Honoured("The call it answers; must be one of the conversation's.")]
    name: Annotated[str | None, Honoured("The tool's name; found from the call when absent.")] = None


class FunctionMessage(Shape):
    role: Literal["function"]
    content: Annotated[str | None, Honoured("The result.")] = None
    name: Annotated[str, Honoured("The function that gave it.")]


Message: TypeAlias = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage, Field(discriminator="role")
]

# ---------------------------------------------------------------------------------------------------------- tools

ToolName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]
_ANY_SCHEMA = "A JSON Schema that calls must satisfy; absent: no arguments are promised."


class FunctionSpec(Shape):
    name: Annotated[ToolName, Honoured("Its name.")]
    description: Annotated[str | None, Honoured("What it does, for the model.")] = None
    parameters: Annotated[JsonObject | None, Honoured(_ANY_SCHEMA)] = None
    strict: Annotated[
        bool | None, Honoured("The schema must keep OpenAI's strict rules. Calls satisfy it in any case.")
    ] = None


class FunctionTool(Shape):
    type: Literal["function"]
    function: Annotated[FunctionSpec, Honoured("The function.")]


class GrammarText(Shape):
    syntax: Annotated[Literal["lark", "regex"], Honoured("How it is written.")]
    definition: Annotated[str, Honoured("The grammar.")]


class FormatText(Shape):
    type: Literal["text"]


class FormatGrammar(Shape):
    type: Literal["grammar"]
    grammar: Annotated[GrammarText, Honoured("What the input must match.")]


class CustomSpec(Shape):
    name: Annotated[ToolName, Honoured("Its name.")]
    description: Annotated[str | None, Honoured("What it does, for the model.")] = None
    format: Annotated[
        Annotated[FormatText | FormatGrammar, Field(discriminator="type")] | None,
        Honoured("Free text (default), or text that a grammar shapes."),
    ] = None


class CustomTool(Shape):
    type: Literal["custom"]
    custom: Annotated[CustomSpec, Honoured("The tool.")]


Tool: TypeAlias = Annotated[FunctionTool | CustomTool, Field(discriminator="type")]


class ToolReference(Shape):
    name: Annotated[str, Honoured("The name of one of `tools`.")]


class NamedFunction(Shape):
    type: Literal["function"]
    function: Annotated[ToolReference, Honoured("The function that must be called.")]


class NamedCustom(Shape):
    type: Literal["custom"]
    custom: Annotated[ToolReference, Honoured("The tool that must be called.")]


class AllowedSpec(Shape):
    mode: Annotated[Literal["auto", "required"], Honoured("Whether one of them must be called.")]
    tools: Annotated[
        list[Annotated[NamedFunction | NamedCustom, Field(discriminator="type")]],
        Field(min_length=1),
        Honoured("The tools that may be called."),
    ]


class AllowedTools(Shape):
    type: Literal["allowed_tools"]
    allowed_tools: Annotated[AllowedSpec, Honoured("A choice among some of `tools`.")]


def _word_or_type(value: object) -> str | None:
    if isinstance(value, dict):
        type_ = cast("dict[str, object]", value).get("type")
        return type_ if type_ in {"function", "custom", "allowed_tools"} else None
    return "word" if isinstance(value, str) else None


ToolChoice: TypeAlias = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("word")]
    | Annotated[NamedFunction, Tag("function")]
    | Annotated[NamedCustom, Tag("custom")]
    | Annotated[AllowedTools, Tag("allowed_tools")],
    Discriminator(
        _word_or_type,
        custom_error_type=UNION,
        custom_error_message="'none', 'auto', 'required' or an object of type 'function', 'custom' or 'allowed_tools'",
    ),
]


def _word_or_object(value: object) -> str | None:
    return "word" if isinstance(value, str) else "object" if isinstance(value, dict) else None


FunctionChoice: TypeAlias = Annotated[
    Annotated[Literal["none", "auto"], Tag("word")] | Annotated[ToolReference, Tag("object")],
    Discriminator(
        _word_or_object, custom_error_type=UNION, custom_error_message="'none', 'auto' or an object with a name"
    ),
]

# ----------------------------------------------------------------------------------------------- response formats


class TextFormat(Shape):
    type: Literal["text"]


class JsonObjectFormat(Shape):
    type: Literal["json_object"]
    schema_: Annotated[
        JsonObject | None, Field(alias="schema"), Honoured("Not OpenAI's: a schema that the object satisfies.")
    ] = None


class SchemaSpec(Shape):
    name: Annotated[ToolName, Honoured("A name for it.")]
    description: Annotated[str | None, Reported("The schema is enforced; it is not described to the model.")] = None
    schema_: Annotated[JsonObject | None, Field(alias="schema"), Honoured("The schema; absent: any object.")] = None
    strict: Annotated[
        bool | None, Honoured("The schema must keep OpenAI's strict rules. It is enforced in any case.")
    ] = None


class JsonSchemaFormat(Shape):
    type: Literal["json_schema"]
    json_schema: Annotated[SchemaSpec, Honoured("The schema that the answer satisfies.")]


ResponseFormat: TypeAlias = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(Shape):
    """vLLM's way to shape an answer: one of these."""

    json_: Annotated[JsonObject | str | None, Field(alias="json"), Honoured("A JSON Schema, or its text.")] = None
    regex: Annotated[str | None, Honoured("A regular expression.")] = None
    choice: Annotated[list[str] | None, Field(min_length=1), Honoured("The answer is one of these.")] = None
    grammar: Annotated[str | None, Honoured("A grammar in llama.cpp's GBNF.")] = None
    json_object: Annotated[bool | None, Honoured("Any JSON object.")] = None
