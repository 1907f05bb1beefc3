"""What an answer must be, as the engine's Constraint. Pure."""

from __future__ import annotations

from puna.chat.schema import schema_to_gbnf
from puna.errors import Unsupported
from puna.types import JsonOutput, Output


def output_gbnf(output: Output) -> str:
    """A grammar for an answer that is all one output. InvalidRequest when there is none."""
    if isinstance(output, JsonOutput):
        return schema_to_gbnf(output.schema)
    if output.syntax == "gbnf":
        return output.text
    raise Unsupported(f"grammars in {output.syntax} cannot be enforced here", param="response_format")
