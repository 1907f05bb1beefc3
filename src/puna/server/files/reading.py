"""What the routes of files, uploads and batches share: what a request says, and what it is answered."""

from __future__ import annotations

import time

from starlette.requests import Request

from puna.errors import NotFound
from puna.server.contract.reading import ShapeType, read_request
from puna.server.contract.report import Report
from puna.server.openai.wording import WORDING
from puna.server.owner import owner_of
from puna.server.services import Services
from puna.state.records import Kind, Record

BATCH_SECONDS = 30 * 24 * 3600
"""How long files for batches stay where nothing was said."""


async def read_body(services: Services, request: Request, shape: type[ShapeType]) -> ShapeType:
    body, _ = await read_request(request, shape, WORDING, strict=services.settings.strict)
    return body


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
