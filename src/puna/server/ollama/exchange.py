"""What every native handler does with a request and an answer: read the body, word what is missing, report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import quote

from starlette.requests import Request

from puna.errors import InvalidRequest, ModelNotFound, NotFound
from puna.server.body import read_object
from puna.server.ollama.schema import Body, BodyType, read

STRICT = "x-puna-strict"
"""Request header, `true` or `false`: refuse unknown fields, or report them."""


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
    """In strict mode a field that is not known is a mistake. The request's header wins over `strict`, the setting."""
    wanted = request.headers.get(STRICT, str(strict)).lower()
    if wanted not in {"true", "1", "false", "0"}:
        raise InvalidRequest(f"invalid header {STRICT}: expected true or false", param=STRICT)
    if wanted in {"true", "1"} and body.unknown:
        raise InvalidRequest(f"unknown field {body.unknown[0]}", param=body.unknown[0], code="unknown_parameter")


def report(request: Request, ignored: Sequence[str]) -> None:
    """Name the fields without effect on the answer, whatever it becomes."""
    if ignored:
        request.state.response_headers["x-puna-ignored"] = field_list(ignored)


def field_list(names: Sequence[str]) -> str:
    """Names of fields as a header value, each once; characters that a header cannot hold are percent-encoded."""
    return ", ".join(quote(name, safe="[].-_ ") for name in dict.fromkeys(names))
