"""A body becomes a checked Shape, and the paths of its fields that have no effect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import Request

from puna.errors import InvalidRequest
from puna.server.body import beside, read_object
from puna.server.contract.faults import Wording, first_fault
from puna.server.contract.options import duration
from puna.server.contract.report import Report
from puna.server.contract.shapes import Refused, Reported, Shape, shape_fields
from puna.settings import LONGEST
from puna.types import JsonObject

STRICT = "x-puna-strict"
"""Request header, `true` or `false`: refuse unknown fields, or report them, whatever the settings say."""

DEADLINE = "x-puna-deadline"
"""Request header: how long it may take, a duration or seconds."""

BACKGROUND = "x-puna-background"
"""Request header, `true`: it is answered behind interactive requests, as the lines of batches are."""

ShapeType = TypeVar("ShapeType", bound=Shape)


_SAID_BY_CLIENTS = ("beta",)
"""Parameters of a URL that mean nothing beside a body, and that Anthropic's client always has."""


async def read_request(
    request: Request, shape: type[ShapeType], wording: Wording, *, strict: bool, known: Collection[str] = ()
) -> tuple[ShapeType, Report]:
    """The checked body, and what its answer has to report. `strict`: the setting. `known`: parameters of the URL that
    the caller reads; others have no effect.

    InvalidRequest names the field at fault; Unsupported a field that cannot be honoured.
    """
    # Taken out by the thread that reads it, which lets go of it too: freeing it takes as long as reading it.
    read = [await read_object(request)]
    refused = refuses_unknown(request, strict)
    body, ignored = await beside(request, lambda: check(shape, read.pop(), wording, strict=refused))
    unread = (name for name in request.query_params if name not in known and name not in _SAID_BY_CLIENTS)
    return body, Report(request.state, [*ignored, *unread])


def read_parameters(request: Request, known: Collection[str], lists: Collection[str] = ()) -> QueryParams:
    """What the URL says. InvalidRequest for a known parameter that is there twice, if it is none of `lists`; those that
    are neither are reported.
    """
    said = request.query_params
    for name, times in Counter(name for name, _ in said.multi_items()).items():
        if times > 1 and name in known:
            raise InvalidRequest(f"Invalid '{name[:100]}': it is there more than once.", param=name)
    Report(request.state, [name for name in said if name not in known and name not in lists])
    return said


def check(shape: type[ShapeType], data: JsonObject, wording: Wording, *, strict: bool) -> tuple[ShapeType, list[str]]:
    """`data` as `shape`, and the paths of fields without effect: those marked so, and those that nobody knows."""
    try:
        body = shape.model_validate(data)
    except ValidationError as error:
        raise first_fault(error, data, wording) from None
    findings = _Findings(wording)
    findings.examine(body, "")
    if strict and findings.unknown:
        raise wording.unknown(findings.unknown[0])
    return body, findings.reported + findings.unknown


def refuses_unknown(request: Request, setting: bool) -> bool:
    """The request's header wins over the setting."""
    return _read_boolean(request.headers, STRICT, default=setting)


def read_background(headers: Mapping[str, str]) -> bool:
    """Whether a request is background work."""
    return _read_boolean(headers, BACKGROUND, default=False)


def _read_boolean(headers: Mapping[str, str], name: str, *, default: bool) -> bool:
    header = headers.get(name)
    match header and header.lower():
        case None:
            return default
        case "true" | "1":
            return True
        case "false" | "0":
            return False
        case _:
            raise InvalidRequest(f"Invalid header '{name}': expected true or false.", param=name)


def read_deadline(headers: Mapping[str, str]) -> float | None:
    """Seconds, over 0; None: as long as it takes."""
    text = headers.get(DEADLINE)
    if text is None:
        return None
    try:
        seconds = duration(text.strip())
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < LONGEST:
        raise InvalidRequest(f"Invalid header '{DEADLINE}': expected a duration such as 30s, over 0.", param=DEADLINE)
    return seconds


@dataclass(slots=True)
class _Findings:
    """Paths of fields that have no effect (`reported`) and that nobody knows (`unknown`)."""

    wording: Wording
    reported: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def examine(self, shape: Shape, prefix: str) -> None:
        self.unknown += [f"{prefix}{name}" for name in shape.model_extra or ()]
        for row in shape_fields(type(shape)):
            if row.attribute not in shape.model_fields_set:
                continue
            value = getattr(shape, row.attribute)
            path = f"{prefix}{row.name}"
            match row.mark:
                case Refused(meaning, harmless) if value not in harmless:
                    raise self.wording.refused(path, meaning)
                case Reported(_, harmless) if value not in harmless:
                    self.reported.append(path)
            for inner, inner_path in _shapes(value, path):
                self.examine(inner, f"{inner_path}.")


def _shapes(value: object, path: str) -> Iterator[tuple[Shape, str]]:
    match value:
        case Shape():
            yield value, path
        case list():
            for index, item in enumerate(value):
                yield from _shapes(item, f"{path}[{index}]")
