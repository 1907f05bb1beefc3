"""A form with files becomes a checked Shape, like a JSON body. Its fields are texts: numbers in it are read as such."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator
from starlette.requests import Request

from puna.server.contract.faults import Wording
from puna.server.contract.reading import ShapeType, check, refuses_unknown
from puna.server.contract.report import Report
from puna.server.multipart import FilePart, FormBounds, Kept, read_multipart

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,300}(\.[0-9]{0,300})?|\.[0-9]{1,300})([eE][+-]?[0-9]{1,2})?")


def _integer(value: object) -> object:
    return int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value


def _number(value: object) -> object:
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _boolean(value: object) -> object:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


FormInteger: TypeAlias = Annotated[int, BeforeValidator(_integer)]
FormNumber: TypeAlias = Annotated[float, BeforeValidator(_number)]
FormBoolean: TypeAlias = Annotated[bool, BeforeValidator(_boolean)]


async def read_form(
    request: Request,
    shape: type[ShapeType],
    wording: Wording,
    *,
    strict: bool,
    bounds: FormBounds,
    keep: Callable[[FilePart], Awaitable[Kept]],
) -> tuple[ShapeType, dict[str, Kept], Report]:
    """The checked fields, what `keep` made of each file, and what the answer has to report. As `read_request` else."""
    refused = refuses_unknown(request, strict)
    form = await read_multipart(request, bounds, keep)
    body, ignored = check(shape, form.fields, wording, strict=refused)
    return body, form.files, Report(request.state, ignored)
