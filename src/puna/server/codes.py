"""The reference of errors: every code that an answer may carry, and what it means. Generates its page.

`python -m puna.server.codes` prints it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import get_args

from puna import errors
from puna.errors import (
    Code,
    Forbidden,
    InvalidRequest,
    NotFound,
    PunaError,
    SourceError,
    StoreError,
    UnsupportedMediaType,
)

MEANINGS: Mapping[Code, str] = {
    "missing_required_parameter": "a field that is needed is not there",
    "invalid_type": "a field has a value of another kind",
    "invalid_value": "a field has a value that it cannot have",
    "unsupported_value": "it cannot be done by this model, by this engine, or here at all",
    "thread_unsupported_request": "Anthropic's dialect: no conversation is held here; its clients then send all of it",
    "unknown_parameter": "a field that nobody knows, where unknown ones are refused",
    "integer_below_min_value": "a whole number is too small",
    "integer_above_max_value": "a whole number is too large",
    "decimal_below_min_value": "a number is too small",
    "decimal_above_max_value": "a number is too large",
    "empty_array": "a list that must hold something is empty",
    "array_below_min_length": "a list is too short",
    "array_above_max_length": "a list is too long",
    "string_below_min_length": "a text is too short",
    "string_above_max_length": "a text is too long",
    "object_above_max_properties": "an object has too many members",
    "context_length_exceeded": "the prompt does not fit the context",
    "invalid_model_name": "it is no name of a model",
    "invalid_digest": "it is no digest",
    "invalid_schema": "it is no schema of a tool or an answer",
    "invalid_json_schema": "a JSON Schema is none, or cannot be enforced; the keyword and the path are told",
    "invalid_grammar": "a grammar cannot be read or used; the line is told",
    "invalid_base64": "it is not base64",
    "invalid_data_url": "it is no data URL",
    "invalid_image_url": "an image cannot be fetched, or may not be",
    "invalid_image_format": "an image is damaged, or of a kind that is not taken",
    "image_too_large": "an image, or all of a request together, is too large",
    "invalid_audio_format": "a sound is damaged, or of a kind that is not taken",
    "audio_too_short": "a sound is too short",
    "audio_too_large": "a sound is too large or too long",
    "invalid_media": "the engine itself cannot read an image or a sound",
    "local_file": "a file on this machine cannot be linked into the store",
    "missing_body": "there is no body",
    "incomplete_body": "the body ended before all of it came",
    "invalid_http": "it is no HTTP that this server reads",
    "unsupported_encoding": "the body is compressed in a way that is not read",
    "invalid_encoding": "the body is not compressed as its header says",
    "invalid_form": "a form with files (multipart/form-data) cannot be read",
    "unsupported_media_type": "the body is of a kind that is not read",
    "endpoint_not_offered": "OpenAI serves it, and here is nothing for it; the message says what is missing",
    "range_not_satisfiable": "the bytes that were asked for are not in the file",
    "unknown_url": "there is nothing at this path",
    "method_not_supported": "the path is right, the method is not",
    "request_timeout": "the request did not come in time",
    "request_too_large": "the body is over the limit",
    "url_too_long": "the URL is over the limit",
    "head_too_large": "the head is over the limit",
    "rate_limit_exceeded": "this caller has to wait",
    "invalid_api_key": "the key is missing or wrong",
    "forbidden": "the origin or the host is not allowed",
    "request_cancelled": "the caller went away",
    "not_found": "it is not there",
    "conversation_locked": "a response is under way in the conversation: ask again when that has ended",
    "previous_response_not_found": "the response to go on from, or one before it, is not there",
    "conflict": "something else happened to it meanwhile",
    "model_not_found": "there is no such model",
    "invalid_model_file": "a model's file or template is damaged, hostile or of an unknown kind",
    "model_damaged": "a file of a stored model is missing or damaged; `puna verify MODEL --repair` mends it",
    "store_error": "the models directory cannot be read or written",
    "store_read_only": "the models directory cannot be written",
    "state_error": "what the server keeps for its callers (answers, files) cannot be read or written",
    "storage_full": "this caller keeps as much as it may; delete something (PUNA_STATE_RECORDS, PUNA_STATE_BYTES)",
    "disk_full": "the disk is full",
    "source_error": "where a model comes from answered with an error, or not as it should",
    "digest_mismatch": "bytes are not what their digest says",
    "unreachable": "where a model comes from cannot be reached",
    "access_denied": "where a model comes from does not let this user in",
    "download_too_large": "a pull would download more than the setting allows",
    "private_address": "a host's address is not public, and no setting names the host",
    "registry_not_allowed": "the setting of allowed registries does not have that host",
    "pip_missing": "this Python has no pip to fetch a model with",
    "overloaded": "the queue is full, or memory is; try again later",
    "server_stopping": "the server is ending; what was under way is cut",
    "deadline_exceeded": "the time that the request gave itself (`x-puna-deadline`) is over: not begun, or cut",
    "engine_error": "the engine failed at this request",
    "model_load_failed": "the model could not be loaded; the cause is told",
    "model_load_timeout": "the model did not load in the time allowed",
    "runner_died": "the model's process ended in the middle of the work",
    "invalid_script": "a script of the scripted engine is none",
    "server_unreachable": "the command found no server that answers",
    "not_puna": "the command found another program at the server's address",
}

_HEAD = """\
# Errors

*Generated by `python -m puna.server.codes`; the type of every error's code is checked against it.*

On `/v1` an error is `{"error": {"message", "type", "param", "code"}}`, on `/api` it is `{"error": "message"}`. A fault
of Puna's own has status 500 and no code; a body that is no JSON is told without one, too. Every code, and the status
that it comes with:

| code | status | what is wrong |
|---|---|---|
"""


def reference() -> str:
    """The whole page."""
    lines = [f"| `{code}` | {', '.join(map(str, statuses(code)))} | {MEANINGS[code]} |" for code in get_args(Code)]
    return _HEAD + "\n".join(lines) + "\n"


def statuses(code: Code) -> list[int]:
    """Those that an answer with this code may have, the least first."""
    found = {kind.status for kind in _kinds() if kind.default_code == code}
    if (other := _STATUSES.get(code)) is not None:
        found.add(other)
    return sorted(found or {InvalidRequest.status})


_STATUSES: Mapping[Code, int] = {
    "unsupported_encoding": UnsupportedMediaType.status,
    "unknown_url": NotFound.status,
    "endpoint_not_offered": NotFound.status,
    "digest_mismatch": InvalidRequest.status,
    "disk_full": StoreError.status,
    "download_too_large": Forbidden.status,
    "private_address": Forbidden.status,
    "registry_not_allowed": Forbidden.status,
    "pip_missing": SourceError.status,
}
"""Of errors that carry another code than their kind has for its own."""


def _kinds() -> Iterator[type[PunaError]]:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, PunaError):
            yield value


if __name__ == "__main__":
    sys.stdout.write(reference())
