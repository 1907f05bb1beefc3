"""Tools and the choice among them: their contract, and what they become. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from puna.errors import InvalidRequest, Unsupported
from puna.server.anthropic.blocks import CACHED, CacheControl
from puna.server.contract.shapes import UNION, Honoured, JsonObject, Refused, Reported, Shape
from puna.server.contract.tools import MAX_TOOLS, ToolName
from puna.types import Tool, ToolChoice

_STANDARD_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
"""What Anthropic's own API takes."""


class CallersTool(Shape):
    type: Literal["custom"] | None = None
    name: Annotated[ToolName, Honoured("Its name.")]
    description: Annotated[str | None, Honoured("What it does, for the model.")] = None
    input_schema: Annotated[JsonObject, Honoured("A JSON Schema that calls satisfy.")]
    strict: Annotated[bool | None, Honoured("Calls satisfy the schema in any case.")] = None
    cache_control: Annotated[CacheControl | None, CACHED] = None
    eager_input_streaming: Annotated[bool | None, Honoured("Arguments come as they are written in any case.")] = None
    defer_loading: Annotated[bool | None, Reported("The model is told of every tool.", harmless=(False,))] = None
    input_examples: Annotated[
        list[JsonObject] | None, Reported("Templates have no place for examples.", harmless=([],))
    ] = None
    allowed_callers: Annotated[
        list[str] | None, Refused("Nothing runs here that could call it but the model.", harmless=(["direct"], []))
    ] = None


class AnthropicTool(Shape):
    """A tool that Anthropic's servers run, or whose form only its models know: refused by its name."""

    type: str


def _form(value: object) -> str | None:
    if isinstance(value, dict):
        type_ = value.get("type", "custom")
        return "custom" if type_ == "custom" else "hosted" if isinstance(type_, str) else None
    return None


GivenTool: TypeAlias = Annotated[
    Annotated[CallersTool, Tag("custom")] | Annotated[AnthropicTool, Tag("hosted")],
    Discriminator(_form, custom_error_type=UNION, custom_error_message="a tool"),
]


class Choosing(Shape):
    disable_parallel_tool_use: Annotated[bool | None, Honoured("At most one call; default false.")] = None


class ChoiceAuto(Choosing):
    type: Literal["auto"]


class ChoiceAny(Choosing):
    type: Literal["any"]


class ChoiceTool(Choosing):
    type: Literal["tool"]
    name: Annotated[str, Honoured("The tool that must be called.")]


class ChoiceNone(Shape):
    type: Literal["none"]


CallChoice: TypeAlias = Annotated[ChoiceAuto | ChoiceAny | ChoiceTool | ChoiceNone, Field(discriminator="type")]


class WithTools(Shape):
    """Fields of a request whose answer may call tools."""

    tools: Annotated[
        list[GivenTool] | None,
        Field(max_length=MAX_TOOLS),
        Honoured("Tools of the caller's own, with every model. Those of Anthropic's servers are refused by name."),
    ] = None
    tool_choice: Annotated[CallChoice | None, Honoured("auto, any, tool or none; enforced while generating.")] = None


# ------------------------------------------------------------------------------------------------ what they become


def to_tools(body: WithTools) -> tuple[Tool, ...]:
    tools = tuple(_tool(spec, f"tools[{index}]") for index, spec in enumerate(body.tools or []))
    names = [tool.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequest(f"The tool '{twice}' is there more than once.", param="tools")
    return tools


def _tool(spec: CallersTool | AnthropicTool, path: str) -> Tool:
    if isinstance(spec, AnthropicTool):
        raise Unsupported(
            f"'{path}': the tool '{spec.type[:100]}' is of Anthropic's own servers and models. "
            "Give a tool of your own, with a name and an input_schema.",
            param=f"{path}.type",
        )
    return Tool(
        name=spec.name,
        description=spec.description or "",
        parameters=spec.input_schema,
        strict=bool(spec.strict),
    )


def to_tool_choice(body: WithTools, tools: Sequence[Tool]) -> ToolChoice:
    choice = body.tool_choice
    if choice is None or isinstance(choice, ChoiceAuto):
        return ToolChoice()
    if isinstance(choice, ChoiceNone):
        return ToolChoice("none")
    if not tools:
        raise InvalidRequest("'tool_choice' asks for a call: 'tools' must be set.", param="tool_choice")
    if isinstance(choice, ChoiceAny):
        return ToolChoice("required")
    if choice.name not in {tool.name for tool in tools}:
        raise InvalidRequest(f"The tool '{choice.name[:100]}' is not among 'tools'.", param="tool_choice.name")
    return ToolChoice("required", (choice.name,))


def parallel_calls(body: WithTools) -> bool:
    return not (isinstance(body.tool_choice, Choosing) and body.tool_choice.disable_parallel_tool_use)


def nonstandard_tools(tools: Sequence[Tool]) -> tuple[str, ...]:
    """The paths of names that Anthropic's own API refuses."""
    return tuple(f"tools[{index}].name" for index, tool in enumerate(tools) if not _STANDARD_NAME.fullmatch(tool.name))
