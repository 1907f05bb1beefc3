"""Fields of what a server answered. One that is missing, or of another kind than it should be, is empty."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from puna.types import JsonObject, JsonValue


def text_of(item: JsonObject, key: str) -> str:
    value = item.get(key)
    return value if isinstance(value, str) else ""


def integer_of(item: JsonObject, key: str) -> int | None:
    value = item.get(key)
    return value if isinstance(value, int) else None


def object_of(item: JsonObject, key: str) -> JsonObject:
    value: JsonValue = item.get(key)
    return value if isinstance(value, dict) else {}


def objects_of(item: JsonObject, key: str) -> list[JsonObject]:
    value = item.get(key)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def moment_of(item: JsonObject, key: str) -> datetime:
    """RFC 3339, whose nanoseconds Python's own reader before 3.11 does not take. 1970 stands for none."""
    text = text_of(item, key)
    head, dot, tail = text.partition(".")
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}.{tail[:digits][:6].ljust(6, '0')}{tail[digits:]}"
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return datetime.fromtimestamp(0, timezone.utc)
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
