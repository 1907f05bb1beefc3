"""The lock file: which models, to the byte, a project is made with. Pure.

JSON, one model an entry, by name in order: the name in full, the digest of its manifest, its bytes, and where it was
pulled from when it was locked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from puna.errors import InvalidName, InvalidRequest
from puna.model.reference import Reference
from puna.types import JsonObject

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """`wanted` has a digest. `size`: bytes of all blobs. `source`: '' where none is known."""

    wanted: Reference
    size: int
    source: str = ""


def dump_lock(models: Sequence[Locked]) -> str:
    entries: list[JsonObject] = [
        {
            "name": model.wanted.name.full,
            "manifest": str(model.wanted.digest),
            "size": model.size,
            "source": model.source,
        }
        for model in sorted(models, key=lambda model: model.wanted.name.full)
    ]
    return json.dumps({"version": VERSION, "models": entries}, indent=2, ensure_ascii=False) + "\n"


def parse_lock(text: str) -> tuple[Locked, ...]:
    """InvalidRequest when it is none, or of a later version."""
    try:
        shape = json.loads(text)
        version, entries = shape["version"], shape["models"]
        if version != VERSION:
            raise InvalidRequest(f"the lock file is of version {version!r}: this Puna reads version {VERSION}")
        return tuple(_locked(entry) for entry in entries)
    except (ValueError, KeyError, TypeError, RecursionError, InvalidName) as error:
        raise InvalidRequest(f"the lock file cannot be read: {type(error).__name__} {error}") from error


def _locked(entry: JsonObject) -> Locked:
    size = entry["size"]
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError(f"{size!r} is no size")
    wanted = Reference.parse(f"{entry['name']}@{entry['manifest']}")
    return Locked(wanted=wanted, size=size, source=str(entry.get("source", "")))
