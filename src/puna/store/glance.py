"""What models directories hold, at a glance: for a list that cannot wait until the Library is imported.

It lists what `Library.models` lists, and leaves out what that leaves out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from puna.errors import PunaError, StoreError, Unsupported
from puna.model.gguf import read_header
from puna.model.manifest import MAX_MANIFEST_BYTES, MODEL_TYPE, PROJECTOR_TYPE, parse_config, parse_manifest
from puna.model.name import Name
from puna.store.blobs import Blobs, damaged
from puna.store.faults import MISSING
from puna.store.manifests import Manifests


@dataclass(frozen=True, slots=True)
class Listed:
    """`digest`: 64 hex digits of the manifest's bytes; `size`: bytes of all blobs; `modified`: UTC."""

    name: Name
    digest: str
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A model that cannot be used, and why."""

    name: Name
    reason: str


def glance(models: Path, read_only: Sequence[Path] = ()) -> tuple[list[Listed], list[LeftOut]]:
    """Newest first. StoreError as `Library.open` raises it."""
    check_directories(models, read_only)
    found: dict[tuple[str, str, str, str], Listed] = {}
    left_out: list[LeftOut] = []
    for root in (models, *read_only):
        manifests = Manifests(root / "manifests")
        blobs = Blobs(root / "blobs", [path / "blobs" for path in read_only] if root is models else [])
        for name in manifests.names():
            if name.folded in found:
                continue
            try:
                listed = _listed(manifests, blobs, name)
            except PunaError as error:
                left_out.append(LeftOut(name, str(error)))
            else:
                if listed is not None:
                    found[name.folded] = listed
    return sorted(found.values(), key=lambda listed: listed.modified, reverse=True), left_out


def check_directories(models: Path, read_only: Sequence[Path]) -> None:
    """StoreError when a path is no directory, or a read-only one is missing."""
    if models.exists() and not models.is_dir():
        raise StoreError(f"the models directory {models} is not a directory")
    missing = next((path for path in read_only if not path.is_dir()), None)
    if missing is not None:
        raise StoreError(f"the read-only models directory {missing} is not a directory")


def _listed(manifests: Manifests, blobs: Blobs, name: Name) -> Listed | None:
    """None when it went away in this moment."""
    stamp = manifests.stamp(name)
    if stamp is None:
        return None
    data = manifests.read(name)
    manifest = parse_manifest(data)
    parse_config(blobs.read(manifest.config.digest, limit=MAX_MANIFEST_BYTES))
    files = manifest.of_type(MODEL_TYPE)
    if not files:
        raise Unsupported(f"model '{name.short}' has no GGUF weights here", param="model")
    for layer in (files[-1], *manifest.of_type(PROJECTOR_TYPE)):
        path = blobs.find(layer.digest)
        if path is None:
            raise damaged(MISSING, layer.digest, "a file of it", name.short)
        read_header(path)
    return Listed(name, hashlib.sha256(data).hexdigest(), manifest.size, stamp.modified)
