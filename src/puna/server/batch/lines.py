"""The lines of a batch: what they ask, what is wrong with them, what becomes of them. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from puna.errors import InvalidRequest
from puna.server.body import dump, dump_text, kind, parse_json
from puna.server.contract.report import HEADERS as REPORTS
from puna.types import JsonObject, JsonValue

MAX_LINES = 50_000
MAX_INPUTS = 50_000
"""Texts to embed, of all lines together."""
MAX_CUSTOM_ID = 512
MAX_FAULTS = 100
"""Faults of one batch that are told."""


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One request. `number` from 1, as in the file."""

    number: int
    custom_id: str
    body: JsonObject
    ignored: tuple[str, ...] = ()
    """What else is in the line, and means nothing."""

    @property
    def text(self) -> bytes:
        return dump(self.body)


@dataclass(frozen=True, slots=True)
class LineFault:
    """What is wrong with a line, or with the file (`line` None)."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None

    @property
    def shown(self) -> JsonObject:
        return {"code": self.code, "message": self.message, "param": self.param, "line": self.line}


@dataclass(frozen=True, slots=True)
class Checked:
    """What a file of lines is: how many, for which model, and all that is wrong with it."""

    total: int
    model: str | None
    faults: tuple[LineFault, ...]


def check_lines(lines: Iterable[bytes], endpoint: str, *, one_model: bool = True) -> Checked:
    """Every line is looked at, up to the limits. Blocking: a large file takes seconds.

    `one_model`: a line that asks another than the first is a fault.
    """
    ids: set[str] = set()
    model: str | None = None
    total = inputs = 0
    faults: list[LineFault] = []
    for number, text in numbered(lines):
        total += 1
        if total > MAX_LINES:
            faults.append(LineFault("too_many_tasks", f"The file has more than {MAX_LINES} lines."))
            break
        try:
            line = read_line(number, text, endpoint)
            if line.custom_id in ids:
                raise _Fault(
                    "duplicate_custom_id", f"There is a line with the custom_id '{line.custom_id}' before.", "custom_id"
                )
            ids.add(line.custom_id)
            asked = line.body.get("model")
            if not isinstance(asked, str):
                raise _Fault("missing_required_parameter", "Missing required parameter: 'body.model'.", "body.model")
            model = model or asked
            if one_model and asked != model:
                raise _Fault(
                    "mismatched_model",
                    f"All lines ask one model: '{asked[:100]}' is not '{model[:100]}'.",
                    "body.model",
                )
        except _Fault as fault:
            faults.append(LineFault(fault.code, fault.message, fault.param, number))
            if len(faults) == MAX_FAULTS:
                break
            continue
        if endpoint == "/v1/embeddings":
            inputs += _inputs(line.body.get("input"))
            if inputs > MAX_INPUTS:
                faults.append(
                    LineFault("too_many_inputs", f"The lines have more than {MAX_INPUTS} inputs.", None, number)
                )
                break
    if not total:
        faults.append(LineFault("empty_file", "The file has no lines."))
    return Checked(total, model, tuple(faults))


def numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines that hold something, with their numbers from 1."""
    for number, text in enumerate(lines, 1):
        stripped = (text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text).strip()
        if stripped:
            yield number, stripped


def lines_of(file: BinaryIO, most: int) -> Iterator[bytes]:
    """The lines of a file. One over `most` bytes is cut, and so no JSON any more."""
    while text := file.readline(most):
        yield text
        while not text.endswith(b"\n") and (text := file.readline(most)):
            pass


class _Fault(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


_FIELDS = frozenset({"custom_id", "method", "url", "body"})


def read_line(number: int, text: bytes, endpoint: str) -> BatchLine:
    """The request in a line. Raises what `check_lines` tells."""
    try:
        value = parse_json(text)
    except InvalidRequest as error:
        cause = error.message.partition(": ")[2] or error.message
        raise _Fault("invalid_json_line", f"This line is not parseable as valid JSON: {cause}") from error
    if not isinstance(value, dict):
        raise _Fault("invalid_json_line", f"A line is an object, but this one is {kind(value)}.")
    custom_id, method, url, body = (value.get(name) for name in ("custom_id", "method", "url", "body"))
    for name, found in (("custom_id", custom_id), ("method", method), ("url", url), ("body", body)):
        if found is None:
            raise _Fault("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID:
        raise _Fault("invalid_custom_id", f"Expected a text of 1 to {MAX_CUSTOM_ID} characters.", "custom_id")
    if method != "POST":
        raise _Fault("invalid_method", "The method of a line is POST.", "method")
    if url != endpoint:
        raise _Fault("invalid_url", f"The batch was made for {endpoint}: a line cannot ask another endpoint.", "url")
    if not isinstance(body, dict):
        raise _Fault(
            "invalid_type", f"Invalid type for 'body': expected an object, but got {kind(body)} instead.", "body"
        )
    if body.get("stream"):
        raise _Fault("invalid_value", "Answers of a batch are not streamed.", "body.stream")
    if body.get("background"):
        raise _Fault("invalid_value", "A batch waits for its answers: background is refused.", "body.background")
    return BatchLine(number, custom_id, body, tuple(name for name in value if name not in _FIELDS))


def _inputs(value: JsonValue) -> int:
    many = isinstance(value, list) and bool(value) and isinstance(value[0], str | list)
    return len(value) if many and isinstance(value, list) else 1


# -------------------------------------------------------------------------------------------------- what becomes of it


def answered(line: BatchLine, status: int, headers: Mapping[str, str], body: JsonValue) -> JsonObject:
    """The line of an output or an error file for a request that was answered.

    `headers`: of the answer; what they report of the request goes into the line.
    """
    response: JsonObject = {"status_code": status, "request_id": headers.get("x-request-id", ""), "body": body}
    reported: JsonObject = {name: headers[name] for name in REPORTS if name in headers}
    if reported:
        response["headers"] = reported
    return _out(line, response=response, error=None)


def unanswered(line: BatchLine, code: str, message: str) -> JsonObject:
    """The same for one that never was."""
    error: JsonObject = {"code": code, "message": message}
    return _out(line, response=None, error=error)


def _out(line: BatchLine, **told: JsonValue) -> JsonObject:
    ignored: JsonObject = {"ignored": list(line.ignored)} if line.ignored else {}
    return {"id": _request_id(), "custom_id": line.custom_id, **told, **ignored}


def written(line: JsonObject) -> bytes:
    return dump_text(line).encode("utf-8", "replace") + b"\n"


def _request_id() -> str:
    return f"batch_req_{secrets.token_hex(12)}"
