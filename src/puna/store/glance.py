"""What models directories hold, at a glance: for a list that cannot wait until the Library is imported.

It lists what `Library.listed` lists, and leaves out what that leaves out: from the same shelf, and by the Library
itself where that does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from puna.model.listed import LeftOut, Listed
from puna.store.files import check_directories
from puna.store.manifests import Manifests
from puna.store.shelf import FILE_NAME, Glimpse, Shelf


def glance(models: Path, read_only: Sequence[Path] = ()) -> tuple[list[Listed], list[LeftOut]]:
    """Newest first. StoreError as `Library.open` raises it."""
    check_directories(models, read_only)
    known = _from_shelf(models, read_only)
    if known is not None:
        return known, []
    from puna.store.library import Library

    return Library.open(models, read_only=read_only).survey()


def _from_shelf(models: Path, read_only: Sequence[Path]) -> list[Listed] | None:
    """None when a model is not on it."""
    shelf, look = Shelf(models / FILE_NAME), Glimpse()
    found: dict[tuple[str, str, str, str], Listed] = {}
    for root in (models, *read_only):
        for name, stamp in Manifests(root / "manifests").stamped():
            if name.folded in found:
                continue
            label = shelf.get(str(root), name, stamp, look)
            if label is None:
                return None
            found[name.folded] = Listed(name, stamp.modified, label)
    return sorted(found.values(), key=lambda listed: listed.modified, reverse=True)
