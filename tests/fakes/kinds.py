"""Kinds of values that libraries have schemas for, and the tables of them in the docs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from puna.errors import InvalidRequest, UnsatisfiableSchema
from puna.grammar.schema import schema_to_gbnf

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "structured-output.md"


def outcome(made: Any, *, by: str = "the library") -> str:
    """Of `{"schema": …}` or `{"refused": …}`: served, or refused by whom and why."""
    if "schema" not in made:
        return f"{by} has no JSON Schema for it"
    try:
        schema_to_gbnf(made["schema"])
    except UnsatisfiableSchema:
        return "refused: no value satisfies it"
    except InvalidRequest as error:
        return f"refused: `{error.message.split(': ')[1]}`"
    return "served"


def cell(kind: str) -> str:
    """As a cell of a table."""
    return f"`{kind}`".replace("|", "\\|")


def documented(library: str) -> dict[str, str]:
    """The rows between the marks of this table."""
    inside = PAGE.read_text().partition(f"<!-- {library} -->\n")[2].partition("<!-- end -->")[0]
    rows = (line.removeprefix("| ").removesuffix(" |").rpartition(" | ") for line in inside.splitlines()[2:])
    return {kind: said for kind, _, said in rows}
