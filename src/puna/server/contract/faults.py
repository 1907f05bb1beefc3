"""Where a request is wrong, and the words in which its dialect says so. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from puna.errors import InvalidRequest, Unsupported
from puna.types import JsonValue


@dataclass(frozen=True, slots=True)
class Wording:
    """How a dialect words what is wrong with a request.

    `fault`: Pydantic's error at a path; `unknown`: a field that no shape knows, in strict mode; `refused`: a field that
    cannot be honoured here, with the meaning that its mark gives.
    """

    fault: Callable[[ErrorDetails, str], InvalidRequest]
    unknown: Callable[[str], InvalidRequest]
    refused: Callable[[str, str], Unsupported]


def first_fault(error: ValidationError, data: JsonValue, wording: Wording) -> InvalidRequest:
    """The first fault of a request, as its client should read it."""
    first = error.errors(include_url=False)[0]
    return wording.fault(first, path_of(first["loc"], data, missing=first["type"] == "missing"))


def path_of(location: tuple[int | str, ...], data: JsonValue, *, missing: bool = False) -> str:
    """'messages[0].content' from Pydantic's location, which also holds the names of union choices: those are no keys of
    `data`. `missing`: the last item is a key that is not there."""
    path, here = "", data
    for position, item in enumerate(location):
        if isinstance(here, list) and isinstance(item, int) and item < len(here):
            path, here = f"{path}[{item}]", here[item]
        elif isinstance(here, dict) and isinstance(item, str) and item in here:
            path, here = join(path, item), here[item]
        elif missing and position == len(location) - 1:
            path = join(path, str(item))
    return path


def join(path: str, key: str) -> str:
    """The path of a member."""
    return f"{path}.{key}" if path else key
