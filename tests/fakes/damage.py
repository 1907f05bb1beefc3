"""Requests that somebody damaged: bytes and fields at random."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import Any

JUNK: list[Any] = [
    None, True, -1, 0, 2**63, 1e308, 0.5, "", "x", "\0", "😀" * 50, "file-1", [], [[]], ["a"], [1], {}, {"a": {}},
    {"anchor": "created_at", "seconds": -1}, {"anchor": 1, "seconds": []}, {"a": "b" * 600}, "0" * 32, "9" * 400,
]  # fmt: skip


def rounds(few: int) -> int:
    """How many to send: `few`, unless PUNA_TEST_DAMAGED says."""
    return int(os.environ.get("PUNA_TEST_DAMAGED", few))


def damaged(chance: random.Random, body: bytes) -> bytes:
    """The same bytes, with some of them cut, doubled, or others."""
    data = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(5):
            case 0:
                del data[at:]
            case 1:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 2:
                del data[at : at + chance.randint(1, 20)]
            case 3:
                data[at:at] = data[at : at + chance.randint(1, 60)]
            case _:
                data[at:at] = chance.choice([b"\r\n", b"--boundary", b"\0", b'"', b"\xff\xfe", b"[", b";"])
    return bytes(data)


def changed(chance: random.Random, body: Mapping[str, Any]) -> dict[str, Any]:
    """The same object, with some of its fields gone, or something else."""
    fields = dict(body)
    for name in chance.sample([*fields, "other"], chance.randint(1, 2)):
        if chance.random() < 0.2:
            fields.pop(name, None)
        else:
            fields[name] = chance.choice(JUNK)
    return fields
