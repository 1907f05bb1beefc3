"""What every native handler does with a request: read the body, word what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from puna.errors import InvalidRequest, ModelNotFound, NotFound
from puna.server.body import body_of
from puna.server.contract.reading import ShapeType, read_request
from puna.server.contract.report import Report
from puna.server.middleware import is_loopback
from puna.server.ollama.wording import WORDING


async def read_body(request: Request, shape: type[ShapeType], *, strict: bool) -> tuple[ShapeType, Report]:
    """The checked body, and what its answer has to report. Its content type does not matter. `strict`: the setting."""
    # Of a body of white space alone a look at its beginning is enough: a long one is refused all the same.
    if not (await body_of(request))[:1000].strip():
        raise InvalidRequest("missing request body", code="missing_body")
    return await read_request(request, shape, WORDING, strict=strict)


@contextmanager
def missing_as(message: str) -> Iterator[None]:
    """Say a model that is not there in the words of this route, which clients look for; then what may be meant."""
    try:
        yield
    except ModelNotFound as error:
        raise NotFound(message + error.hint, param="model", code="model_not_found") from error


def required(model: str) -> str:
    """A model's name that may not be empty."""
    if not model:
        raise InvalidRequest("model is required", param="model", code="missing_required_parameter")
    return model


def is_local(request: Request) -> bool:
    """Whether a program on this machine asks, and no page in a browser."""
    client = request.client
    return client is not None and is_loopback(client.host) and "origin" not in request.headers
