"""The one place where an error becomes bytes: a renderer per dialect, chosen by the path and Anthropic's header."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping

from starlette.responses import Response

from puna.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    Overloaded,
    PunaError,
    RunnerDied,
    ServerStopping,
    TooManyRequests,
    Unauthorized,
    UnsatisfiableRange,
    Unsupported,
    UnsupportedMediaType,
)
from puna.server.body import JsonReply
from puna.server.encoding import ACCEPTED
from puna.types import JsonObject

_OPENAI_PATHS = ("/v1", "/v2", "/tokenize", "/detokenize", "/tokenizer_info", "/rerank", "/score")
_ANTHROPIC_PATH = "/v1/messages"
_ANTHROPIC_HEADER = "anthropic-version"

_ANTHROPIC_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_OVERLOADED = 529
"""Anthropic's status of a server that has no room."""


def openai_error(error: PunaError) -> JsonObject:
    """OpenAI's error object: all four keys, always."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def ollama_error(error: PunaError) -> JsonObject:
    return {"error": error.message}


def anthropic_error(error: PunaError, request_id: str | None) -> JsonObject:
    """Anthropic's error object. It has no place for the field at fault but the message, and its clients tell a prompt
    that is too long by the words.
    """
    kind = _ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    message = error.message
    if isinstance(error, ContextLengthExceeded):
        message = f"prompt is too long: {error.tokens} tokens > {error.limit} maximum. {message}"
    elif isinstance(error, InvalidRequest) and error.param is not None and error.param not in message:
        message = f"{error.param}: {message}"
    details: JsonObject = {"error_code": error.code, "param": error.param}
    if isinstance(error, Unsupported):
        details["unsupported"] = [error.param]
    told: JsonObject = {"type": kind, "message": message, "details": details}
    return {"type": "error", "error": told, "request_id": request_id}


def speaks_anthropic(path: str, headers: Mapping[str, str]) -> bool:
    """Whether a request is of Anthropic's dialect: by its path, or, where OpenAI has the same, by its header."""
    if path == _ANTHROPIC_PATH or path.startswith(f"{_ANTHROPIC_PATH}/"):
        return True
    return _ANTHROPIC_HEADER in headers and speaks_openai(path)


def speaks_openai(path: str) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in _OPENAI_PATHS)


def error_body(
    error: PunaError, path: str, headers: Mapping[str, str] | None = None, request_id: str | None = None
) -> JsonObject:
    """What the client of a request to `path` with these headers understands."""
    if speaks_anthropic(path, headers or {}):
        return anthropic_error(error, request_id)
    return openai_error(error) if speaks_openai(path) else ollama_error(error)


def error_response(
    error: PunaError, path: str, headers: Mapping[str, str] | None = None, request_id: str | None = None
) -> Response:
    status = error.status
    if status == 503 and speaks_anthropic(path, headers or {}):
        status = _OVERLOADED
    return JsonReply(error_body(error, path, headers, request_id), status=status, headers=_headers(error))


_SCARCE: Mapping[int, str] = {
    errno.EMFILE: "no more open files (ulimit -n)",
    errno.ENFILE: "no more open files",
    errno.EAGAIN: "no more processes or threads",
    errno.ENOMEM: "no more memory",
}
"""What a system may refuse to a server for a while."""

NO_THREAD = "can't start new thread"
"""All that Python says of a thread that it was refused."""


def internal_error(request_id: str, error: BaseException) -> PunaError:
    """What a client is told of an error that nobody made for it: that the system has no more of something, or that the
    fault is ours. Its cause is in the log under the same id, and only there.
    """
    scarce = _SCARCE.get(error.errno or 0) if isinstance(error, OSError) else None
    if isinstance(error, MemoryError):
        scarce = _SCARCE[errno.ENOMEM]
    if isinstance(error, RuntimeError) and str(error) == NO_THREAD:
        scarce = _SCARCE[errno.EAGAIN]
    if scarce is not None:
        return Overloaded(f"The system gives this server {scarce}: try again (request id {request_id}).")
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
