"""What the routes of files, uploads and batches share: what a request says, and what it is answered."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from puna.errors import InvalidRequest, NotFound
from puna.server.contract.forms import read_form
from puna.server.contract.reading import ShapeType, read_request
from puna.server.contract.report import Report
from puna.server.multipart import FilePart, FormBounds
from puna.server.openai.wording import WORDING
from puna.server.owner import owner_of
from puna.server.services import Services
from puna.state.records import Kind, Record
from puna.state.state import Stored

BATCH_SECONDS = 30 * 24 * 3600
"""How long files for batches stay where nothing was said."""


async def read_body(services: Services, request: Request, shape: type[ShapeType]) -> ShapeType:
    body, _ = await read_request(request, shape, WORDING, strict=services.settings.strict)
    return body


@asynccontextmanager
async def read_kept(
    services: Services, request: Request, shape: type[ShapeType], field: str, most: int, setting: str
) -> AsyncIterator[tuple[ShapeType, Stored, FilePart]]:
    """A form with one file, whose bytes are kept; InvalidRequest where it has none. They go when this is left with an
    error: nobody would find them."""
    state = services.state
    kept: list[tuple[Stored, FilePart]] = []

    async def keep(part: FilePart) -> None:
        kept.append((await state.contents.add(part.chunks, most=most), part))

    bounds = FormBounds(files=(field,), file=most, fields=16, field=4096, setting=setting)
    try:
        strict = services.settings.strict
        body, _, _ = await read_form(request, shape, WORDING, strict=strict, bounds=bounds, keep=keep)
        if not kept:
            raise InvalidRequest(
                f"Missing required parameter: '{field}'.", param=field, code="missing_required_parameter"
            )
        yield body, *kept[0]
    except BaseException:
        for stored, _ in kept:
            await state.discard(stored.digest)
        raise


async def find_kept(services: Services, request: Request, kind: Kind, name: str) -> Record:
    """The object that the path names. NotFound: `name` is what it is called in OpenAI's words.

    No URL of one object has parameters: those that there are are reported.
    """
    Report(request.state, list(request.query_params))
    id_: str = request.path_params["id"]
    record = await services.state.get(kind, id_, owner_of(request))
    if record is None:
        raise NotFound(f"No such {name} object: {id_[:100]}", param="id")
    return record


def stay(purpose: str, said: int | None) -> int | None:
    """Seconds that a file of a purpose stays; None: until it is deleted."""
    return said if said is not None else BATCH_SECONDS if purpose == "batch" else None


def now() -> float:
    """Seconds since 1970."""
    return time.time()
