"""Tools: their contract, and what they become. Pure."""

from __future__ import annotations

import json
from typing import Annotated

from puna.errors import Unsupported
from puna.server.contract.shapes import Honoured, JsonObject, Shape
from puna.server.contract.tools import ToolName
from puna.types import Tool


class FunctionBody(Shape):
    name: Annotated[ToolName, Honoured("Its name.")]
    description: Annotated[str, Honoured("What it does, for the model.")] = ""
    parameters: Annotated[JsonObject | None, Honoured("A JSON Schema that calls satisfy.")] = None
    strict: Annotated[bool, Honoured("A schema that cannot be enforced whole is refused.")] = False


class ToolBody(Shape):
    type: Annotated[str, Honoured("`function`; other kinds are refused.")] = "function"
    function: Annotated[FunctionBody, Honoured("The function.")]


def to_tool(body: ToolBody, path: str) -> Tool:
    """`path`: of the tool in its request, for errors."""
    if body.type != "function":
        raise Unsupported(f"tool type {json.dumps(body.type)} is not supported, only function is", param=f"{path}.type")
    function = body.function
    return Tool(function.name, function.description, function.parameters, function.strict)
