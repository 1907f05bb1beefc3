"""Pydantic's errors in the words of Ollama's decoder. Pure."""

from __future__ import annotations

from pydantic_core import ErrorDetails

from puna.errors import InvalidRequest, Unsupported
from puna.server.contract.faults import Wording
from puna.server.contract.shapes import UNION

_EXPECTED = {
    "string_type": "string",
    "int_type": "integer",
    "int_from_float": "integer",
    "int_parsing_size": "integer",
    "float_type": "number",
    "bool_type": "boolean",
    "list_type": "array",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
}


def _fault(error: ErrorDetails, path: str) -> InvalidRequest:
    if error["type"] == "missing":
        return InvalidRequest(f"{path} is required", param=path, code="missing_required_parameter")
    if error["type"] == UNION:
        message = f"{path}: Unsupported type: '{json_kind(error['input'])}', expected {error['msg']}"
        return InvalidRequest(message, param=path, code="invalid_type")
    expected = _EXPECTED.get(error["type"])
    if expected is None:
        return InvalidRequest(f"invalid {path}: {error['msg'][:1].lower()}{error['msg'][1:]}", param=path)
    message = f"json: cannot unmarshal {json_kind(error['input'])} into field {path} of type {expected}"
    return InvalidRequest(message, param=path, code="invalid_type")


def _unknown(path: str) -> InvalidRequest:
    return InvalidRequest(f"unknown field {path}", param=path, code="unknown_parameter")


def _refused(path: str, meaning: str) -> Unsupported:
    return Unsupported(f"'{path}' is not supported: {meaning}", param=path)


WORDING = Wording(_fault, _unknown, _refused)


def json_kind(value: object) -> str:
    """What a JSON value is, in the words of Ollama's decoder."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
