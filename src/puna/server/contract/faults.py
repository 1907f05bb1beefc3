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
    `data`, or keys of the same name (`text`). `missing`: the last item is a key that is not there."""
    way = _way(location, data, missing)
    if way is None:  # nothing there may lack it
        way = (*(_way(location[:-1], data, False) or ()), location[-1])
    path = ""
    for item in way:
        path = f"{path}[{item}]" if isinstance(item, int) else join(path, item)
    return path


def _way(location: tuple[int | str, ...], here: JsonValue, missing: bool) -> tuple[int | str, ...] | None:
    """The longest way along `location` into `here`; None where its last key is not missing but cannot be."""
    if not location:
        return ()
    item, rest = location[0], location[1:]
    if missing and not rest:
        return (item,) if isinstance(here, dict) and item not in here else None
    if isinstance(here, list) and isinstance(item, int) and item < len(here):
        inside = _way(rest, here[item], missing)
        return None if inside is None else (item, *inside)
    past = _way(rest, here, missing)
    if not (isinstance(here, dict) and isinstance(item, str) and item in here):
        return past
    inside = _way(rest, here[item], missing)
    if inside is None or (past is not None and len(past) > len(inside)):
        return past  # the name of a choice, then: it leads as far, or farther
    return (item, *inside)


def join(path: str, key: str) -> str:
    """The path of a member."""
    return f"{path}.{key}" if path else key
