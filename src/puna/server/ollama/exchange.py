"""What every native handler does with a request and an answer: read the body, word what is missing, report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from starlette.requests import Request

from puna.errors import InvalidRequest, ModelNotFound, NotFound
from puna.server.body import read_object
from puna.server.fields import IGNORED, field_list, refuses_unknown
from puna.server.ollama.schema import Body, BodyType, read


async def read_body(request: Request, kind: type[BodyType]) -> BodyType:
    """The body as `kind`. Its content type does not matter."""
    if not (await request.body()).strip():
        raise InvalidRequest("missing request body", code="missing_body")
    return read(kind, await read_object(request))


@contextmanager
def missing_as(message: str) -> Iterator[None]:
    """Say a model that is not there in the words of this route; clients look for them."""
    try:
        yield
    except ModelNotFound as error:
        raise NotFound(message, param="model", code="model_not_found") from error


def required(model: str) -> str:
    """A model's name that may not be empty."""
    if not model:
        raise InvalidRequest("model is required", param="model", code="missing_required_parameter")
    return model


def refuse_unknown(request: Request, body: Body, *, strict: bool) -> None:
    """In strict mode a field that is not known is a mistake. `strict`: the setting."""
    if refuses_unknown(request, strict) and body.unknown:
        raise InvalidRequest(f"unknown field {body.unknown[0]}", param=body.unknown[0], code="unknown_parameter")


def report(request: Request, ignored: Sequence[str]) -> None:
    """Name the fields without effect on the answer, whatever it becomes."""
    if ignored:
        request.state.response_headers[IGNORED] = field_list(ignored)
