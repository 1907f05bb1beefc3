"""Whose the objects of a request are: whoever has its key. Without keys, there is one owner."""

from __future__ import annotations

import hashlib

from starlette.requests import Request

NOBODY = ""
"""The one owner where there are no keys."""


def owner_of_key(key: bytes) -> str:
    """The owner that a key stands for: told by its digest, so that no key is written to a disk."""
    return hashlib.sha256(b"owner:" + key).hexdigest()[:32]


def owner_of(request: Request) -> str:
    """As `Keys` found it."""
    owner: str = getattr(request.state, "owner", NOBODY)
    return owner
