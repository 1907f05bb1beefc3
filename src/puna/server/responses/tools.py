"""Tools and the choice among them, as this API writes them: flat. Their contract, and what they become. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from puna.errors import InvalidRequest
from puna.server.contract.shapes import UNION, Honoured, JsonObject, JsonValue, Reported, Shape, type_of
from puna.server.contract.tools import MAX_TOOLS, ToolName
from puna.server.openai.strict import check_strict
from puna.server.openai.tools import FormatText, known_choice, nonstandard_name, nonstandard_number
from puna.server.responses.hosted import HostedTool
from puna.types import Grammar, Tool, ToolChoice

_LOADING = Reported("Every tool is told to the model at once.", harmless=(False,))
_CALLERS = Reported("Every call is the model's own.", harmless=([], ["direct"]))
_ASYNC = Reported("Calls wait.", harmless=(False,))


class FlatFunction(Shape):
    type: Literal["function"]
    name: Annotated[ToolName, Honoured("Its name.")]
    description: Annotated[str | None, Honoured("What it does, for the model.")] = None
    parameters: Annotated[
        JsonObject | None, Honoured("A JSON Schema that calls must satisfy; absent: no arguments are promised.")
    ] = None
    strict: Annotated[
        bool | None, Honoured("true: the schema must keep OpenAI's strict rules. Calls satisfy it in any case.")
    ] = None
    output_schema: Annotated[JsonValue, Reported("Results are taken as they come.")] = None
    defer_loading: Annotated[bool | None, _LOADING] = None
    allowed_callers: Annotated[list[str] | None, _CALLERS] = None
    async_: Annotated[bool | None, Field(alias="async"), _ASYNC] = None


class FlatGrammar(Shape):
    type: Literal["grammar"]
    syntax: Annotated[Literal["lark", "regex"], Honoured("How it is written.")]
    definition: Annotated[str, Honoured("What the input must match.")]


class FlatCustom(Shape):
    type: Literal["custom"]
    name: Annotated[ToolName, Honoured("Its name.")]
    description: Annotated[str | None, Honoured("What it does, for the model.")] = None
    format: Annotated[
        Annotated[FormatText | FlatGrammar, Field(discriminator="type")] | None,
        Honoured("Free text (default), or text that a grammar shapes."),
    ] = None
    defer_loading: Annotated[bool | None, _LOADING] = None
    allowed_callers: Annotated[list[str] | None, _CALLERS] = None
    async_: Annotated[bool | None, Field(alias="async"), _ASYNC] = None


class Namespace(Shape):
    type: Literal["namespace"]
    name: Annotated[ToolName, Honoured("Its name: calls of its tools say it.")]
    description: Annotated[str, Honoured("What its tools are for; stands before the description of each.")]
    tools: Annotated[
        list[Annotated[FlatFunction | FlatCustom, Field(discriminator="type")]],
        Field(max_length=MAX_TOOLS),
        Honoured("The tools. To the model each is called `name.tool`."),
    ]


class HostedToolSpec(Shape):
    type: HostedTool


_HOSTED: tuple[str, ...] = HostedTool.__origin__.__args__  # type: ignore[attr-defined]


def _form(value: object) -> str | None:
    type_ = type_of(value)
    if type_ is None:
        return None
    return type_ if type_ in {"function", "custom", "namespace"} else "hosted" if type_ in _HOSTED else None


AnyTool: TypeAlias = Annotated[
    Annotated[FlatFunction, Tag("function")]
    | Annotated[FlatCustom, Tag("custom")]
    | Annotated[Namespace, Tag("namespace")]
    | Annotated[HostedToolSpec, Tag("hosted")],
    Discriminator(
        _form, custom_error_type=UNION, custom_error_message="a tool of type 'function', 'custom' or 'namespace'"
    ),
]


class ChosenTool(Shape):
    type: Literal["function", "custom"]
    name: Annotated[str, Honoured("The name of one of `tools`, which must be called.")]


class AllowedChoice(Shape):
    type: Literal["allowed_tools"]
    mode: Annotated[Literal["auto", "required"], Honoured("Whether one of them must be called.")]
    tools: Annotated[list[ChosenTool], Field(min_length=1), Honoured("The tools that may be called.")]


def _choice_form(value: object) -> str | None:
    if isinstance(value, dict):
        type_ = type_of(value)
        if type_ in {"function", "custom"}:
            return "tool"
        return "allowed_tools" if type_ == "allowed_tools" else "hosted" if type_ in _HOSTED else None
    return "word" if isinstance(value, str) else None


AnyToolChoice: TypeAlias = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("word")]
    | Annotated[ChosenTool, Tag("tool")]
    | Annotated[AllowedChoice, Tag("allowed_tools")]
    | Annotated[HostedToolSpec, Tag("hosted")],
    Discriminator(
        _choice_form,
        custom_error_type=UNION,
        custom_error_message="'none', 'auto', 'required' or an object of type 'function', 'custom' or 'allowed_tools'",
    ),
]


class Equipped(Shape):
    """Fields of a request whose answer may call tools."""

    tools: Annotated[
        list[AnyTool] | None,
        Field(max_length=MAX_TOOLS),
        Honoured("Function and custom tools, and namespaces of them, with every model."),
    ] = None
    tool_choice: Annotated[
        AnyToolChoice | None,
        Honoured("none, auto, required, one named tool, or allowed_tools; enforced while generating."),
    ] = None
    parallel_tool_calls: Annotated[
        bool | None, Honoured("Default true; false: at most one call. A named tool is called once in any case.")
    ] = None


# ------------------------------------------------------------------------------------------------ what they become


@dataclass(frozen=True, slots=True)
class _Given:
    """A tool, where it is written, and the namespace that it is in."""

    tool: FlatFunction | FlatCustom
    param: str
    space: Namespace | None = None


def _given(body: Equipped) -> Iterator[_Given]:
    for index, tool in enumerate(body.tools or []):
        param = f"tools[{index}]"
        match tool:
            case Namespace():
                for at, inner in enumerate(tool.tools):
                    yield _Given(inner, f"{param}.tools[{at}]", tool)
            case FlatFunction() | FlatCustom():
                yield _Given(tool, param)
            case HostedToolSpec():
                raise AssertionError("its shape refuses it")


def spaced(namespace: str | None, name: str) -> str:
    """What a tool is called to the model."""
    return name if namespace is None else f"{namespace}.{name}"


def namespaces(body: Equipped) -> dict[str, tuple[str, str]]:
    """Of tools in namespaces: what the model calls them, to the namespace and the name that the request has."""
    return {
        spaced(given.space.name, given.tool.name): (given.space.name, given.tool.name)
        for given in _given(body)
        if given.space is not None
    }


def equipment(body: Equipped) -> tuple[Tool, ...]:
    tools = tuple(map(_tool, _given(body)))
    names = [tool.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequest(f"The tool '{twice}' is there more than once.", param="tools")
    return tools


def _tool(given: _Given) -> Tool:
    tool, space = given.tool, given.space
    name = spaced(None if space is None else space.name, tool.name)
    about = "\n".join(text for text in ("" if space is None else space.description, tool.description) if text)
    if isinstance(tool, FlatFunction):
        if tool.strict and tool.parameters is not None:
            check_strict(tool.parameters, what=f"function '{tool.name}'", param=f"{given.param}.parameters")
        return Tool(name=name, description=about, parameters=tool.parameters, strict=bool(tool.strict))
    grammar = Grammar(tool.format.syntax, tool.format.definition) if isinstance(tool.format, FlatGrammar) else None
    return Tool(name=name, description=about, kind="custom", grammar=grammar)


def flat_names(body: Equipped) -> dict[str, str]:
    """What this request calls the parts of its tools."""
    names: dict[str, str] = {}
    for index, given in enumerate(_given(body)):
        names[f"tools[{index}]"] = given.param
        names[f"tools[{index}].grammar"] = f"{given.param}.format.definition"
    return names


def nonstandard_equipment(body: Equipped) -> tuple[str, ...]:
    """The paths of names, and of the list, that OpenAI's own API refuses."""
    named = [f"{given.param}.name" for given in _given(body) if nonstandard_name(given.tool.name)]
    return (("tools",) if nonstandard_number(len(body.tools or [])) else ()) + tuple(named)


def chosen(body: Equipped, tools: tuple[Tool, ...]) -> ToolChoice:
    choice = _choice(body.tool_choice)
    if choice.mode == "required" and not tools:
        raise InvalidRequest("When using 'tool_choice', 'tools' must be set.", param="tool_choice")
    return known_choice(choice, tools, "tool_choice")


def _choice(choice: AnyToolChoice | None) -> ToolChoice:
    match choice:
        case None:
            return ToolChoice()
        case ChosenTool(name=name):
            return ToolChoice("required", (name,))
        case AllowedChoice(mode=mode, tools=tools):
            return ToolChoice(mode, tuple(dict.fromkeys(tool.name for tool in tools)))
        case HostedToolSpec():
            raise AssertionError("its shape refuses it")
        case _:
            return ToolChoice(choice)


def may_call_twice(body: Equipped) -> bool:
    """Whether there may be several calls: a named tool is called once."""
    return body.parallel_tool_calls is not False and not isinstance(body.tool_choice, ChosenTool)
