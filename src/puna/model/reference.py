"""Reference: a Name, and perhaps the digest of the one manifest that is meant under it. Pure.

`NAME@sha256:…` may stand wherever a request or a command names a model that exists: it means that manifest and no
other, whatever the Name stands for by now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from puna.errors import InvalidName, InvalidRequest
from puna.model.digest import Digest
from puna.model.name import Name


@dataclass(frozen=True, slots=True)
class Reference:
    """`digest`: of a manifest's bytes, in small letters; None: whichever is under the Name."""

    name: Name
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, param: str = "model") -> Reference:
        """From `NAME` or `NAME@sha256:<64 hex>`. InvalidName if it is neither."""
        name, at, digest = text.strip().partition("@")
        if not at:
            return cls(Name.parse(name, param=param))
        try:
            found = Digest.parse(digest.lower())
        except InvalidRequest as error:
            what = f"{digest[:80]!r} after the @ is no digest: expected sha256: and 64 hex digits, no revision"
            raise InvalidName(f"invalid model name {text[:400]!r}: {what}", param=param) from error
        return cls(Name.parse(name, param=param), found)

    def fits(self, digest: str) -> bool:
        """Whether the manifest with that digest, 64 hex digits, may be meant."""
        return self.digest is None or self.digest.hex == digest.lower()

    @property
    def short(self) -> str:
        """As people read it."""
        return self.name.short if self.digest is None else f"{self.name.short}@{self.digest}"


Wanted: TypeAlias = Name | Reference
"""What a model is asked for by."""


def reference(wanted: Wanted) -> Reference:
    return wanted if isinstance(wanted, Reference) else Reference(wanted)
