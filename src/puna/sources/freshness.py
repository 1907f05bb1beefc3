"""Freshness: whether what a source would bring now is what is stored. Pure.

Registries tell the digest of a manifest before it is fetched, which settles it. Other sources tell a version of their
own, which is compared with that of the last pull. Whatever was changed here since it was pulled is nobody's to renew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from puna.model.digest import Digest
from puna.model.name import Name
from puna.sources.source import Offer
from puna.store.pulls import Pulled

Standing: TypeAlias = Literal["current", "outdated", "own", "unknown", "gone"]
"""`own`: it was not pulled, or changed since. `unknown`: its source cannot tell. `gone`: the source has it no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """Of one stored model. `reason`: in words, what the state comes of. `source`: '' when it has none."""

    name: Name
    state: Standing
    reason: str = ""
    source: str = ""
    stored: Digest
    offered: str = ""


def compare(name: Name, stored: Digest, pulled: Pulled | None, offer: Offer) -> Freshness:
    """`stored`: the digest of the manifest that is here; `pulled`: what the last pull brought."""

    def found(state: Standing, reason: str, offered: str = "") -> Freshness:
        return Freshness(name=name, state=state, reason=reason, source=offer.source, stored=stored, offered=offered)

    if pulled is not None and pulled.manifest != stored:
        pulled = None
    if offer.manifest is not None:
        digest = str(offer.manifest)
        if offer.manifest.hex.lower() == stored.hex:
            return found("current", "", digest)
        if pulled is not None:
            return found("outdated", f"{offer.source} has another one now", digest)
        return found("own", f"it is not what was pulled, nor what {offer.source} has", digest)
    if pulled is None:
        return found("own", "it was not pulled by this Puna, or was changed since", offer.revision or "")
    if offer.revision is None or pulled.revision is None:
        return found("unknown", f"{offer.source} does not tell what it has before it is fetched")
    if offer.revision == pulled.revision:
        return found("current", "", offer.revision)
    return found("outdated", f"{pulled.revision} is here, {offer.source} has {offer.revision}", offer.revision)
