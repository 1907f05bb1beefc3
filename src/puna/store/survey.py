"""Survey: what lists say of all models of some stores. A model is read only when something of it changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from puna.errors import PunaError
from puna.model.listed import Label, LeftOut, Listed
from puna.model.name import Name
from puna.store.shelf import Shelf
from puna.store.stamp import Stamp, StampedFile
from puna.store.stores import Store, settled, sound

if TYPE_CHECKING:
    from puna.model.gguf import Header
    from puna.store.reading import Reading


def survey(
    stores: Sequence[Store], shelf: Shelf, header: Callable[[Path, str], Header]
) -> tuple[list[Listed], list[LeftOut]]:
    """All that can be used, newest first, and what cannot, with the reason. `header`: of a file, as Reading has it."""
    found: dict[tuple[str, str, str, str], Listed] = {}
    left_out: list[LeftOut] = []
    look, places, new = shelf.look(), [], False
    for store in stores:
        root, labels = str(store.root), _Labels(store, header)
        for name, stamp in store.manifests.stamped():
            folded = name.folded
            if folded in found:
                continue
            places.append((root, name))
            label = look.label(root, name, stamp)
            if label is not None:
                found[folded] = Listed(name, stamp.modified, label)
                continue
            new = True
            try:
                labelled = settled([store], name, labels.of, (store, name, stamp))
            except PunaError as error:
                left_out.append(LeftOut(name, error.message))
                continue
            if labelled is None:
                continue
            if labelled.files is not None:
                shelf.put(root, name, labelled.stamp, labelled.files, labelled.label)
            found[folded] = Listed(name, labelled.stamp.modified, labelled.label)
    if new:
        shelf.save(places)
    return sorted(found.values(), key=lambda listed: listed.modified, reverse=True), left_out


@dataclass(frozen=True, slots=True)
class _Labelled:
    """`files`: all that the model is made of; None when one is missing that nobody reads. `stamp`: of its manifest, as
    it was read.
    """

    label: Label
    files: tuple[StampedFile, ...] | None
    stamp: Stamp


class _Labels:
    """What a list says of the models of a store. Names with the same manifest are read once."""

    def __init__(self, store: Store, header: Callable[[Path, str], Header]) -> None:
        self._store = store
        self._header = header
        self._reading: Reading | None = None
        self._known: dict[str, tuple[Label, tuple[StampedFile, ...] | None]] = {}

    def of(self, store: Store, name: Name, stamp: Stamp) -> _Labelled:
        data, copies = store.manifests.read(name), store.kept.copies(name)
        digest = hashlib.sha256(data).hexdigest()
        known = self._known.get(digest)
        if known is None:
            manifest, reading = sound(name, data, copies), self._reading or self._begun()
            modified, read_only = stamp.modified, store.read_only
            model = reading.model(name, manifest, digest, modified=modified, read_only=read_only)
            known = self._known[digest] = (Label.of(model), reading.files(name, manifest))
        elif copies:
            sound(name, data, copies)  # under this name other bytes may have been stored
        return _Labelled(*known, stamp)

    def _begun(self) -> Reading:
        # Most lists find all models on the shelf, and a command cannot wait for the modules that read them.
        from puna.store.reading import Reading

        self._reading = Reading(self._store.blobs, self._header)
        return self._reading
