"""What the URL of a response says: what to include, whether to follow. Pure."""

from __future__ import annotations

import re
from typing import get_args

from starlette.requests import Request

from puna.errors import InvalidRequest
from puna.server.responses.bodies import Includable

_NEGATIVE = re.compile(r"-[0-9]+")

NAMES = ("include", "include[]")
"""How clients write the list."""


def included(request: Request) -> frozenset[str]:
    """InvalidRequest for what nothing is called."""
    said = [value for name in NAMES for value in request.query_params.getlist(name)]
    unknown = next((value for value in said if value not in get_args(Includable)), None)
    if unknown is not None:
        raise InvalidRequest(f"Invalid value: '{unknown[:100]}' cannot be included.", param="include")
    return frozenset(said)


def flag(request: Request, name: str) -> bool:
    """A parameter that is true or false."""
    match request.query_params.get(name, "false").lower():
        case "true" | "1":
            return True
        case "false" | "0" | "":
            return False
        case other:
            raise InvalidRequest(
                f"Invalid type for '{name}': expected a boolean, but got '{other[:100]}' instead.",
                param=name,
                code="invalid_type",
            )


def number(request: Request, name: str) -> int | None:
    """A whole number from 0 on."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if _NEGATIVE.fullmatch(text):
        raise InvalidRequest(
            f"Invalid '{name}': integer below minimum value. Expected a value >= 0, but got {text[:30]} instead.",
            param=name,
            code="integer_below_min_value",
        )
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidRequest(
            f"Invalid type for '{name}': expected an integer, but got '{text[:100]}' instead.",
            param=name,
            code="invalid_type",
        )
    return int(text)
