"""An answer whose head has come, whoever reads it."""

from __future__ import annotations

import http.client
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Response:
    """Names of `headers` in lower case. `piece`: more of the body, waited for so many seconds; None at its end."""

    status: int
    reason: str
    headers: Mapping[str, str]
    piece: Callable[[float | None], Awaitable[bytes | None]]
    _ended: bool = False

    async def pieces(self, seconds: float | None = None) -> AsyncIterator[bytes]:
        """The body as it arrives. Broken when it ends too early, TooSlow when all of it takes longer than `seconds`."""
        until = None if seconds is None else time.monotonic() + seconds
        while not self._ended:
            try:
                piece = await self.piece(None if until is None else max(0.0, until - time.monotonic()))
            except Exception:
                self._ended = True
                raise
            if piece is None:
                self._ended = True
            else:
                yield piece

    async def read(self, limit: int | None = None, seconds: float | None = None) -> bytes:
        """The whole body, or not much more of it than `limit` bytes."""
        data = bytearray()
        async for piece in self.pieces(seconds):
            data += piece
            if limit is not None and len(data) >= limit:
                break
        return bytes(data)


def lower(head: http.client.HTTPResponse) -> dict[str, str]:
    """Its headers."""
    return {name.lower(): value for name, value in head.getheaders()}
