"""Quota: how many bytes one pull may download, by a setting. Asked before anything comes."""

from __future__ import annotations

from puna.errors import Forbidden


class Quota:
    """Of one pull. `limit`: bytes; 0: any number."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    def check(self, what: str, size: int) -> None:
        """Forbidden when `size` bytes more are too many. `what` would bring them, in words."""
        if self._limit and self._taken + size > self._limit:
            raise Forbidden(
                f"{what} would make {self._taken + size} bytes to download, and PUNA_MAX_DOWNLOAD, where the server "
                f"runs, allows {self._limit}",
                param="model",
                code="download_too_large",
            )

    def take(self, what: str, size: int) -> None:
        """They come now."""
        self.check(what, size)
        self._taken += size
