"""The one place where an error becomes bytes: a renderer per dialect, chosen by the path."""

from __future__ import annotations

import math

from starlette.responses import Response

from puna.errors import (
    Overloaded,
    PunaError,
    RunnerDied,
    ServerStopping,
    TooManyRequests,
    Unauthorized,
    UnsatisfiableRange,
    UnsupportedMediaType,
)
from puna.server.body import JsonReply
from puna.server.encoding import ACCEPTED
from puna.types import JsonObject

_OPENAI_PATHS = ("/v1", "/tokenize", "/detokenize")


def openai_error(error: PunaError) -> JsonObject:
    """OpenAI's error object: all four keys, always."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def ollama_error(error: PunaError) -> JsonObject:
    return {"error": error.message}


def speaks_openai(path: str) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in _OPENAI_PATHS)


def error_body(error: PunaError, path: str) -> JsonObject:
    """What a client of `path` understands."""
    return openai_error(error) if speaks_openai(path) else ollama_error(error)


def error_response(error: PunaError, path: str) -> Response:
    return JsonReply(error_body(error, path), status=error.status, headers=_headers(error))


def internal_error(request_id: str) -> PunaError:
    """For a fault of ours. Its cause is in the log under the same id, and only there."""
    return PunaError(f"The server had an error while processing your request (request id {request_id}).")


def _headers(error: PunaError) -> dict[str, str]:
    """Clients retry every 5xx unless told better: only what may go well next time is worth a retry."""
    headers: dict[str, str] = {}
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = 'Bearer realm="puna"'
    if isinstance(error, Overloaded | TooManyRequests):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, UnsupportedMediaType) and error.code == "unsupported_encoding":
        headers["accept-encoding"] = ", ".join(ACCEPTED)
    if isinstance(error, UnsatisfiableRange):
        headers["content-range"] = f"bytes */{error.size}"
    if error.status >= 500:
        headers["x-should-retry"] = "true" if isinstance(error, Overloaded | RunnerDied | ServerStopping) else "false"
    return headers
