"""Store: one models directory as it lies there. A Name is looked for in several, of which the first is our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from puna.errors import Conflict, ModelDamaged, ModelFileError, StoreError
from puna.model.manifest import Manifest
from puna.model.name import Name
from puna.store.blobs import Blobs
from puna.store.faults import Fault
from puna.store.files import check_directories
from puna.store.kept import DIRECTORY as KEPT
from puna.store.kept import Kept, read_manifest
from puna.store.manifests import Manifests
from puna.store.stamp import Stamp
from puna.store.verified import FILE_NAME, Verified

_ATTEMPTS = 50

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Store:
    root: Path
    manifests: Manifests
    blobs: Blobs
    kept: Kept
    read_only: bool


FoundManifest: TypeAlias = tuple[Store, Name, Stamp]
"""Where a Name is: as it is spelled there, and the stamp of its manifest."""


def open_stores(models: Path, read_only: Sequence[Path] = ()) -> tuple[Store, ...]:
    """The own one, which finds the blobs of the others too, and those. Makes nothing on the disk.

    StoreError when a path is no directory, or a read-only one is missing.
    """
    check_directories(models, read_only)
    verified = Verified(models / FILE_NAME)

    def store(root: Path, others: Sequence[Path], *, only_read: bool) -> Store:
        blobs = Blobs(root / "blobs", [path / "blobs" for path in others], verified)
        return Store(root, Manifests(root / "manifests"), blobs, Kept(root / KEPT), only_read)

    own = store(models, read_only, only_read=False)
    return (own, *(store(path, (), only_read=True) for path in read_only))


def lookup(stores: Sequence[Store], name: Name) -> FoundManifest | None:
    """None when no store has a manifest under that Name, however it is spelled."""
    for store in stores:
        if (stamp := store.manifests.stamp(name)) is not None:
            return store, name, stamp
        spelled = store.manifests.spelled(name)
        if (stamp := store.manifests.stamp(spelled)) is not None:
            return store, spelled, stamp
    return None


def settled(
    stores: Sequence[Store], name: Name, read: Callable[[Store, Name, Stamp], _Value], at: FoundManifest | None = None
) -> _Value | None:
    """What `read` makes of a model; again when the model was replaced meanwhile, by whichever process.

    `at`: where it was a moment ago. None when it is not there, or was deleted. What `read` raises, when nothing has
    changed: the store is damaged.
    """
    for _ in range(_ATTEMPTS):
        found, at = at or lookup(stores, name), None
        if found is None:
            return None
        store, spelled, stamp = found
        try:
            return read(store, spelled, stamp)
        except (StoreError, ModelFileError):
            if store.manifests.stamp(spelled) == stamp:
                raise
    raise Conflict(f"model '{name.short}' is being changed: try again")


def sound(name: Name, data: bytes, copies: Sequence[bytes]) -> Manifest:
    """ModelDamaged when it is none, or not the one that was stored, of which there are `copies`."""
    manifest = read_manifest(data, copies)
    if isinstance(manifest, Fault):
        raise ModelDamaged(
            f"the manifest of model '{name.short}' {manifest.words}. Mend it with: puna verify {name.short} --repair"
        )
    return manifest
