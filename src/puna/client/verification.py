"""What a server tells while it reads every byte of its models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from puna.client.fields import integer_of, text_of

if TYPE_CHECKING:
    from puna.types import JsonObject


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file that `puna verify` found. `words`: what is wrong; `reason`: why it could not be mended, if that was tried.

    `digest` is '' of a manifest.
    """

    model: str
    words: str
    digest: str
    mended: bool
    reason: str

    @classmethod
    def read(cls, item: JsonObject) -> DamagedFile:
        return cls(
            text_of(item, "model"),
            text_of(item, "message"),
            text_of(item, "digest"),
            text_of(item, "status") == "repaired",
            text_of(item, "reason"),
        )


@dataclass(frozen=True, slots=True)
class VerifiedStore:
    """Counts: models that were looked at, files found damaged, and those of them that were mended."""

    models: int
    damaged: int
    mended: int

    @classmethod
    def read(cls, item: JsonObject) -> VerifiedStore:
        return cls(*(integer_of(item, key) or 0 for key in ("models", "damaged", "repaired")))
