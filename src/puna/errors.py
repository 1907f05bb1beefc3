"""Every error that Puna raises on purpose, on one page.

    PunaError                      500  server_error
    ├── InvalidRequest             400  the caller's mistake; `param` names the field
    │   ├── ContextLengthExceeded  400  the prompt does not fit the context
    │   ├── Unsupported            400  the model or the engine cannot do what was asked
    │   └── InvalidName            400  not a model Name
    ├── Unauthorized               401  no key, or a wrong one
    ├── Forbidden                  403  the origin or host is not allowed
    ├── NotFound                   404  an object that is not there
    │   └── ModelNotFound          404  a Name without a Manifest
    ├── MethodNotAllowed           405  the path is right, the verb is not
    ├── RequestTimeout             408  the request did not come in time
    ├── Conflict                   409  what was asked for is being changed by others
    ├── PayloadTooLarge            413  the body is over the limit
    ├── UrlTooLong                 414  the URL is over the limit
    ├── UnsupportedMediaType       415  the body is in a coding that is not read here
    ├── UnsatisfiableRange         416  the bytes that were asked for are not there
    ├── TooManyRequests            429  this caller has to wait
    ├── HeadTooLarge               431  the head is over the limit
    ├── Overloaded                 503  the queue is full, or memory is
    ├── ServerStopping             503  the server ends before the answer did
    ├── DeadlineExceeded           504  the time is over that the request set itself
    ├── Cancelled                  499  the caller went away
    ├── ModelFileError             400  a model file is damaged, hostile or of an unknown kind
    │   ├── ModelDamaged           400  what was stored is not there any more as it was stored
    │   └── TemplateTooCostly      400  its template takes more than any may
    ├── StoreError                 500  the models directory cannot be read or written
    │   └── StoreReadOnly      403  it may be read, not written
    ├── StateError                 500  what the server keeps for its callers cannot be read or written
    │   └── StateFull          403  a caller keeps as much as it may
    ├── SourceError                502  a registry, an index or a transfer failed
    │   ├── SourceNotFound         404  the source does not have that model
    │   ├── SourceUnreachable      502  a host cannot be reached, or the connection broke
    │   ├── SourceAnswer           502  a host answered with an error
    │   ├── AccessDenied           403  a host does not let this user in
    │   └── DigestMismatch         502  bytes arrived that are not what their digest says
    └── EngineError                500  a runner failed
        ├── LoadFailed             500  it did not start; carries the cause from its stderr
        │   └── LoadDied           500  its process ended before it had loaded
        ├── RunnerDied             500  it ended in the middle of work
        └── LoadTimeout            504  it made no progress in the time allowed

A class holds its HTTP status, its OpenAI `type` and its default string `code`. Dialects render these in one place each
(`server/errors.py`); nothing else decides a status. An error is raised as its exact class and chained with `from`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, TypeAlias

Code: TypeAlias = Literal[
    # what a request says
    "missing_required_parameter",
    "invalid_type",
    "invalid_value",
    "unsupported_value",
    "thread_unsupported_request",
    "unknown_parameter",
    "integer_below_min_value",
    "integer_above_max_value",
    "decimal_below_min_value",
    "decimal_above_max_value",
    "empty_array",
    "array_below_min_length",
    "array_above_max_length",
    "string_below_min_length",
    "string_above_max_length",
    "object_above_max_properties",
    "context_length_exceeded",
    "invalid_model_name",
    "invalid_digest",
    "invalid_schema",
    "invalid_json_schema",
    "invalid_grammar",
    "invalid_base64",
    "invalid_data_url",
    "invalid_image_url",
    "invalid_image_format",
    "image_too_large",
    "invalid_audio_format",
    "audio_too_short",
    "audio_too_large",
    "invalid_media",
    "local_file",
    # how it comes
    "missing_body",
    "incomplete_body",
    "invalid_http",
    "unsupported_encoding",
    "invalid_encoding",
    "invalid_form",
    "unsupported_media_type",
    "range_not_satisfiable",
    "unknown_url",
    "endpoint_not_offered",
    "method_not_supported",
    "request_timeout",
    "request_too_large",
    "url_too_long",
    "head_too_large",
    "rate_limit_exceeded",
    "invalid_api_key",
    "forbidden",
    "request_cancelled",
    # models and where they come from
    "not_found",
    "conversation_locked",
    "previous_response_not_found",
    "conflict",
    "model_not_found",
    "invalid_model_file",
    "model_damaged",
    "store_error",
    "store_read_only",
    "state_error",
    "storage_full",
    "disk_full",
    "source_error",
    "digest_mismatch",
    "unreachable",
    "access_denied",
    "download_too_large",
    "private_address",
    "registry_not_allowed",
    "pip_missing",
    # running them
    "overloaded",
    "server_stopping",
    "deadline_exceeded",
    "engine_error",
    "model_load_failed",
    "model_load_timeout",
    "runner_died",
    "invalid_script",
    # the command
    "server_unreachable",
    "not_puna",
]
"""Every code that an error may carry; the reference of errors says what each means."""


class PunaError(Exception):
    """Base of all. `message` is written for the person who reads it; `param` is the request field at fault, if any."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[Code | None] = None

    def __init__(self, message: str, *, param: str | None = None, code: Code | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code

    def __str__(self) -> str:
        return self.message


class InvalidRequest(PunaError):
    status = 400
    type = "invalid_request_error"
    default_code: ClassVar[Code | None] = "invalid_value"


class UnsatisfiableSchema(InvalidRequest):
    """A JSON schema that no value satisfies."""

    default_code: ClassVar[Code | None] = "invalid_json_schema"


class ContextLengthExceeded(InvalidRequest):
    """More tokens than the context holds. `tokens` were sent (or asked for), `limit` fit.

    `least`: that many or more, since they were not counted to the end.
    """

    default_code: ClassVar[Code | None] = "context_length_exceeded"

    def __init__(
        self, tokens: int, limit: int, *, param: str = "messages", what: str = "messages", least: bool = False
    ) -> None:
        count = f"at least {tokens}" if least else f"{tokens}"
        super().__init__(
            f"This model's maximum context length is {limit} tokens. However, your {what} resulted in {count} tokens. "
            f"Please reduce the length of the {what}, or ask for a larger context (num_ctx).",
            param=param,
        )
        self.tokens = tokens
        self.limit = limit


class Unsupported(InvalidRequest):
    default_code: ClassVar[Code | None] = "unsupported_value"


class InvalidName(InvalidRequest):
    default_code: ClassVar[Code | None] = "invalid_model_name"


class Unauthorized(PunaError):
    status = 401
    type = "invalid_request_error"
    default_code: ClassVar[Code | None] = "invalid_api_key"


class Forbidden(PunaError):
    status = 403
    type = "permission_error"
    default_code: ClassVar[Code | None] = "forbidden"


class NotFound(PunaError):
    status = 404
    type = "invalid_request_error"
    default_code: ClassVar[Code | None] = "not_found"


class ModelNotFound(NotFound):
    """No model of this Name is here, or another one than its digest says.

    `name` is what the caller wrote; `near`: Names that may have been meant; `there`: the digest that is under the Name.
    """

    default_code: ClassVar[Code | None] = "model_not_found"

    def __init__(self, name: str, *, near: Sequence[str] = (), there: str = "") -> None:
        self.near = tuple(near)
        self.there = there
        super().__init__(f"model '{name}' not found{self.hint}, try pulling it first: puna pull {name}", param="model")
        self.name = name

    @property
    def hint(self) -> str:
        """To go on with after 'not found': '' or ' (did you mean …?)', ' (under that name is …)'."""
        if self.there:
            return f" (under that name is {self.there})"
        return f" (did you mean {' or '.join(repr(name) for name in self.near)}?)" if self.near else ""


class MethodNotAllowed(PunaError):
    status = 405
    type = "invalid_request_error"
    default_code: ClassVar[Code | None] = "method_not_supported"


class Conflict(PunaError):
    """Worth trying again."""

    status = 409
    type = "invalid_request_error"
    default_code = "conflict"


class PayloadTooLarge(PunaError):
    status = 413
    type = "invalid_request_error"
    default_code: ClassVar[Code | None] = "request_too_large"


class RequestTimeout(PunaError):
    status = 408
    type = "invalid_request_error"
    default_code: ClassVar[Code | None] = "request_timeout"


class UrlTooLong(PunaError):
    status = 414
    type = "invalid_request_error"
    default_code: ClassVar[Code | None] = "url_too_long"


class UnsupportedMediaType(PunaError):
    status = 415
    type = "invalid_request_error"
    default_code = "unsupported_media_type"


class HeadTooLarge(PunaError):
    status = 431
    type = "invalid_request_error"
    default_code: ClassVar[Code | None] = "head_too_large"


class UnsatisfiableRange(PunaError):
    """Of a file that has `size` bytes."""

    status = 416
    type = "invalid_request_error"
    default_code: ClassVar[Code | None] = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes: none of those that were asked for is there.", param="range")
        self.size = size


class TooManyRequests(PunaError):
    """Worth trying again after `retry_after` seconds."""

    status = 429
    type = "rate_limit_error"
    default_code: ClassVar[Code | None] = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(PunaError):
    """Worth trying again after `retry_after` seconds."""

    status = 503
    type = "overloaded_error"
    default_code: ClassVar[Code | None] = "overloaded"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerStopping(PunaError):
    status = 503
    default_code: ClassVar[Code | None] = "server_stopping"

    def __init__(self) -> None:
        super().__init__("The server is stopping: this request was ended before its answer was complete.")


class DeadlineExceeded(PunaError):
    """The request said how long it may take (`x-puna-deadline`)."""

    status = 504
    type = "timeout_error"
    default_code: ClassVar[Code | None] = "deadline_exceeded"

    def __init__(self) -> None:
        super().__init__("The time that this request may take is over (x-puna-deadline).")


class Cancelled(PunaError):
    status = 499
    type = "invalid_request_error"
    default_code: ClassVar[Code | None] = "request_cancelled"


class ModelFileError(PunaError):
    status = 400
    type = "invalid_request_error"
    default_code: ClassVar[Code | None] = "invalid_model_file"


class ModelDamaged(ModelFileError):
    """A file of a stored model is missing, or its bytes are not those that were stored."""

    default_code: ClassVar[Code | None] = "model_damaged"


class TemplateTooCostly(ModelFileError):
    """A chat template takes more time or memory than any may."""


class StoreError(PunaError):
    default_code: ClassVar[Code | None] = "store_error"


class StoreReadOnly(StoreError):
    """The models directory may not be written to.

    `doing`: what was not allowed; `reason`: the system's word for why.
    """

    status = 403
    type = "permission_error"
    default_code: ClassVar[Code | None] = "store_read_only"

    def __init__(self, doing: str, reason: str) -> None:
        super().__init__(
            f"{doing}: the models directory cannot be written ({reason}). What is in it can be used; to add or remove "
            "models, make it writable or name another one (PUNA_MODELS)."
        )


class StateError(PunaError):
    default_code: ClassVar[Code | None] = "state_error"


class StateFull(StateError):
    """A caller keeps as much as the settings allow, and nothing of it may go before its time."""

    status = 403
    type = "permission_error"
    default_code: ClassVar[Code | None] = "storage_full"


class SourceError(PunaError):
    status = 502
    default_code: ClassVar[Code | None] = "source_error"


class SourceNotFound(SourceError):
    status = 404
    type = "invalid_request_error"
    default_code: ClassVar[Code | None] = "model_not_found"


class SourceUnreachable(SourceError):
    """No connection, or it broke: worth another try."""

    default_code: ClassVar[Code | None] = "unreachable"


class SourceAnswer(SourceError):
    """A host answered with an error. `answer`: its HTTP status; `retry_after`: seconds, where it asks to wait."""

    def __init__(self, message: str, answer: int, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.answer = answer
        self.retry_after = retry_after


class AccessDenied(SourceError):
    status = 403
    type = "permission_error"
    default_code: ClassVar[Code | None] = "access_denied"


class DigestMismatch(SourceError):
    default_code: ClassVar[Code | None] = "digest_mismatch"


class EngineError(PunaError):
    default_code: ClassVar[Code | None] = "engine_error"


class LoadFailed(EngineError):
    default_code: ClassVar[Code | None] = "model_load_failed"


class LoadDied(LoadFailed):
    """Its process ended on its own before it had loaded: what runs it again and again had better wait."""


class RunnerDied(EngineError):
    default_code: ClassVar[Code | None] = "runner_died"


class LoadTimeout(EngineError):
    status = 504
    default_code: ClassVar[Code | None] = "model_load_timeout"
