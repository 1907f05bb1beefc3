"""A thought that a client keeps for the server: `encrypted_content` of reasoning and of compactions. Pure.

Nothing here is secret from whoever asked, so it is an encoding and no cipher; OpenAI's name for the field stays.
"""

from __future__ import annotations

import base64
import binascii

_MARK = "puna1."


def sealed(text: str) -> str:
    """`text`, for a client that gives it back unread."""
    return _MARK + base64.urlsafe_b64encode(text.encode("utf-8", "replace")).decode().rstrip("=")


def opened(seal: str) -> str | None:
    """What was sealed; None for the seal of another server."""
    if not seal.startswith(_MARK):
        return None
    body = seal[len(_MARK) :]
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
