"""JSON that can be written again as it was read: without NaN, and without numbers that a float cannot hold."""

from __future__ import annotations

import math
import re
from typing import cast

from pydantic_core import from_json

from puna.types import JsonValue

# Numbers that a float cannot hold are rare, so the walk over the value is made only when the text could hold one.
_SUSPECT = re.compile(rb"[eE]\+?\d{3}|\d{309}")


def strict_json(text: str | bytes, *, partial: bool = False) -> JsonValue:
    """The value. ValueError says what is wrong. `partial`: a text that was cut is read as far as it came."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    value = cast(JsonValue, from_json(data, allow_inf_nan=False, cache_strings="keys", allow_partial=partial))
    if _SUSPECT.search(data) and not _finite(value):
        raise ValueError("a number is too large")
    return value


def _finite(value: JsonValue) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case int():
            return abs(value) < 10**308
        case list():
            return all(map(_finite, value))
        case dict():
            return all(map(_finite, value.values()))
        case _:
            return True
