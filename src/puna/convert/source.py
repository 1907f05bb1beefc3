"""What lies in a directory of a published model beside its weights: settings in JSON. Read without trust."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from puna.errors import ModelFileError
from puna.plainfile import NotPlain, read_plain
from puna.types import JsonObject, JsonValue

MAX_JSON_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Published:
    """An object's values, each of the kind that it is asked as; ModelFileError names one that is not."""

    file: str
    values: JsonObject

    def count(self, name: str, default: int | None = None) -> int:
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            raise ModelFileError(f"{self.file}: {name} is no count: {_told(value)}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelFileError(f"{self.file}: {name} is no number: {_told(value)}")
        return float(value)

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    def said(self, name: str) -> bool:
        return self.values.get(name) is True

    def object(self, name: str) -> JsonObject:
        value = self.values.get(name)
        return value if isinstance(value, dict) else {}


def read_json(path: Path, what: str) -> JsonValue:
    """None when the file is not there. ModelFileError when it is no JSON."""
    if not path.is_file():
        return None
    try:
        value: JsonValue = json.loads(read_plain(path, MAX_JSON_BYTES))
    except NotPlain as error:
        raise ModelFileError(f"{what} is {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{what} is not JSON: {error}") from error
    return value


def settings(directory: Path, name: str) -> Published:
    """Empty when there is no such file."""
    value = read_json(directory / name, name)
    if value is not None and not isinstance(value, dict):
        raise ModelFileError(f"{name} is not an object")
    return Published(name, value or {})


def _told(value: JsonValue) -> str:
    return json.dumps(value)[:60]
