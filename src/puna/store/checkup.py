"""Checkup: every byte of stored models read anew, and a Damage for each file that is not what was stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from puna.errors import ModelFileError, StoreError
from puna.model.digest import Digest
from puna.model.manifest import Layer, Manifest, parse_manifest
from puna.model.name import Name
from puna.store.faults import Fault
from puna.store.kept import manifest_fault
from puna.store.library import Library
from puna.store.reading import part_of
from puna.types import Progress


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with one file of one model. `part`: the file in words; `layer` None: it is the manifest."""

    name: Name
    part: str
    fault: Fault
    layer: Layer | None = None

    @property
    def words(self) -> str:
        """All of it: the weights file of model 'a:latest' is missing from the store."""
        return f"{self.part} {self.fault.words}"


class Checkup:
    """Of several models. A blob that they share is read once. Blocking."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._seen: dict[tuple[Digest, int], Fault | None] = {}

    def of(self, name: Name, report: Callable[[Progress], None]) -> tuple[Damage, ...]:
        """All of one model. ModelNotFound. `report` may raise to stop the work."""
        what = f"the manifest of model '{name.short}'"
        try:
            data, copies = self._library.stored(name)
        except StoreError as error:
            return (Damage(name, what, Fault("unreadable", f"cannot be read: {error.message}")),)
        fault = manifest_fault(data, copies)
        found = [] if fault is None else [Damage(name, what, fault)]
        manifest = _first([data] if fault is None else copies)
        for layer in dict.fromkeys(manifest.blobs) if manifest is not None else ():
            blob = self._blob(layer, report)
            if blob is not None:
                found.append(Damage(name, part_of(layer, name), blob, layer))
        return tuple(found)

    def _blob(self, layer: Layer, report: Callable[[Progress], None]) -> Fault | None:
        key, digest = (layer.digest, layer.size), str(layer.digest)
        if key not in self._seen:
            report(Progress("verifying sha256 digest", digest, layer.size, 0))
            self._seen[key] = self._library.blobs.fault(
                layer.digest,
                layer.size,
                lambda done: report(Progress("verifying sha256 digest", digest, layer.size, done)),
                anew=True,
            )
        return self._seen[key]


def _first(manifests: Sequence[bytes]) -> Manifest | None:
    """The first of them, if it can be read."""
    try:
        return parse_manifest(manifests[0]) if manifests else None
    except ModelFileError:
        return None
