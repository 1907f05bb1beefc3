"""Tools and the choice among them: their contract, and what they become. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from puna.errors import InvalidRequest
from puna.server.contract.shapes import UNION, Honoured, JsonObject, Shape, type_of
from puna.server.contract.tools import MAX_TOOLS, ToolName
from puna.server.openai.strict import check_strict
from puna.types import Grammar, Tool, ToolChoice

_STANDARD_TOOLS = 128
_STANDARD_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What OpenAI's own API takes; agents and MCP servers send more."""

StandardName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]
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


ToolSpec: TypeAlias = Annotated[FunctionTool | CustomTool, Field(discriminator="type")]


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
        type_ = type_of(value)
        return type_ if type_ in {"function", "custom", "allowed_tools"} else None
    return "word" if isinstance(value, str) else None


ToolChoiceSpec: TypeAlias = Annotated[
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


class Tooled(Shape):
    """Fields of a request whose answer may call tools."""

    tools: Annotated[
        list[ToolSpec] | None, Field(max_length=MAX_TOOLS), Honoured("Function and custom tools, with every model.")
    ] = None
    tool_choice: Annotated[
        ToolChoiceSpec | None,
        Honoured("none, auto, required, one named tool, or allowed_tools; enforced while generating."),
    ] = None
    parallel_tool_calls: Annotated[
        bool | None, Honoured("Default true; false: at most one call. A named tool is called once in any case.")
    ] = None
    functions: Annotated[
        list[FunctionSpec] | None,
        Field(min_length=1, max_length=MAX_TOOLS),
        Honoured("The deprecated form of `tools`."),
    ] = None
    function_call: Annotated[FunctionChoice | None, Honoured("The deprecated form of `tool_choice`.")] = None


# ------------------------------------------------------------------------------------------------ what they become


def to_tools(body: Tooled) -> tuple[Tool, ...]:
    if body.tools is not None and body.functions is not None:
        raise InvalidRequest("'functions' is the deprecated form of 'tools': send one of them.", param="functions")
    if body.functions is not None:
        tools = tuple(_function(spec, f"functions[{index}]") for index, spec in enumerate(body.functions))
    else:
        tools = tuple(function_or_custom(tool, f"tools[{index}]") for index, tool in enumerate(body.tools or []))
    names = [tool.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequest(f"The tool '{twice}' is there more than once.", param="tools")
    return tools


def tool_names(body: Shape) -> dict[str, str]:
    """What this request calls the parts of its tools."""
    form = "functions[]" if isinstance(body, Tooled) and body.functions is not None else "tools[].function"
    return {
        **({"tools": "functions"} if form == "functions[]" else {}),
        "tools[].parameters": f"{form}.parameters",
        "tools[].grammar": "tools[].custom.format.grammar.definition",
    }


def nonstandard_tools(body: Tooled) -> tuple[str, ...]:
    """The paths of names, and of lists, that OpenAI's own API refuses."""
    named = [(f"functions[{index}].name", spec.name) for index, spec in enumerate(body.functions or [])]
    for index, tool in enumerate(body.tools or []):
        form, spec = ("function", tool.function) if isinstance(tool, FunctionTool) else ("custom", tool.custom)
        named.append((f"tools[{index}].{form}.name", spec.name))
    many = (("tools",) if body.tools else ("functions",)) if nonstandard_number(len(named)) else ()
    return (*many, *(path for path, name in named if nonstandard_name(name)))


def nonstandard_name(name: str) -> bool:
    """Whether OpenAI's own API refuses a tool of this name."""
    return not _STANDARD_NAME.fullmatch(name)


def nonstandard_number(tools: int) -> bool:
    """Whether OpenAI's own API refuses so many of them."""
    return tools > _STANDARD_TOOLS


def function_or_custom(tool: ToolSpec, param: str) -> Tool:
    if isinstance(tool, FunctionTool):
        return _function(tool.function, f"{param}.function")
    spec = tool.custom
    grammar = None
    if isinstance(spec.format, FormatGrammar):
        grammar = Grammar(spec.format.grammar.syntax, spec.format.grammar.definition)
    return Tool(name=spec.name, description=spec.description or "", kind="custom", grammar=grammar)


def _function(spec: FunctionSpec, param: str) -> Tool:
    if spec.strict and spec.parameters is not None:
        check_strict(spec.parameters, what=f"function '{spec.name}'", param=f"{param}.parameters")
    return Tool(
        name=spec.name,
        description=spec.description or "",
        parameters=spec.parameters,
        strict=bool(spec.strict),
    )


def to_tool_choice(body: Tooled, tools: tuple[Tool, ...]) -> ToolChoice:
    if body.function_call is not None:
        if body.tool_choice is not None or body.functions is None:
            raise InvalidRequest(
                "'function_call' goes with 'functions'; with 'tools' send 'tool_choice'.", param="function_call"
            )
        return _legacy_choice(body.function_call, tools)
    if body.tool_choice is not None and body.functions is not None:
        raise InvalidRequest(
            "'tool_choice' goes with 'tools'; with 'functions' send 'function_call'.", param="tool_choice"
        )
    choice = _choice(body.tool_choice)
    if choice.mode == "required" and not tools:
        raise InvalidRequest("When using 'tool_choice', 'tools' must be set.", param="tool_choice")
    return known_choice(choice, tools, "tool_choice")


def _choice(choice: ToolChoiceSpec | None) -> ToolChoice:
    match choice:
        case None:
            return ToolChoice()
        case NamedFunction():
            return ToolChoice("required", (choice.function.name,))
        case NamedCustom():
            return ToolChoice("required", (choice.custom.name,))
        case AllowedTools(allowed_tools=allowed):
            names = tuple(_referred(tool) for tool in allowed.tools)
            return ToolChoice(allowed.mode, tuple(dict.fromkeys(names)))
        case _:
            return ToolChoice(choice)


def parallel_calls(body: Tooled) -> bool:
    """Whether there may be several calls: a named tool is called once, and the deprecated form has room for one."""
    named = isinstance(body.tool_choice, NamedFunction | NamedCustom)
    return body.parallel_tool_calls is not False and body.functions is None and not named


def _referred(tool: NamedFunction | NamedCustom) -> str:
    return tool.function.name if isinstance(tool, NamedFunction) else tool.custom.name


def _legacy_choice(choice: FunctionChoice, tools: tuple[Tool, ...]) -> ToolChoice:
    if isinstance(choice, ToolReference):
        return known_choice(ToolChoice("required", (choice.name,)), tools, "function_call")
    return ToolChoice(choice)


def known_choice(choice: ToolChoice, tools: tuple[Tool, ...], param: str) -> ToolChoice:
    """The choice. InvalidRequest where it names a tool that is not there."""
    known = {tool.name for tool in tools}
    unknown = next((name for name in choice.names or () if name not in known), None)
    if unknown is not None:
        raise InvalidRequest(f"Tool choice '{unknown}' not found in 'tools' parameter.", param=param)
    return choice
