"""Digest: the sha256 of some bytes, and the two ways Ollama's layout writes it. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from puna.errors import InvalidRequest

_TEXT = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class Digest:
    """The sha256 of some content. `hex` is 64 digits, in the case they came in. Equal digests have equal text."""

    hex: str

    @classmethod
    def parse(cls, text: str, *, param: str | None = None) -> Digest:
        """Accepts 'sha256:<hex>' and 'sha256-<hex>'; anything else is an InvalidRequest."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise InvalidRequest("invalid digest format", param=param, code="invalid_digest")
        return cls(match[1])

    @classmethod
    def of(cls, data: bytes) -> Digest:
        return cls(hashlib.sha256(data).hexdigest())

    @property
    def filename(self) -> str:
        """The name of its blob file."""
        return f"sha256-{self.hex}"

    @property
    def short(self) -> str:
        """The first twelve digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


def listed_digest(digests: Sequence[Digest]) -> Digest:
    """One that stands for several files in order; for one file, its own."""
    return digests[0] if len(digests) == 1 else Digest.of("\n".join(digest.hex for digest in digests).encode())
