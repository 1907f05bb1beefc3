"""What models directories hold, at a glance: for a list that cannot wait until the Library is imported.

It lists what `Library.listed` lists, by the same survey.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from puna.model.listed import LeftOut, Listed
from puna.store.files import store_errors
from puna.store.shelf import FILE_NAME, Shelf
from puna.store.stores import open_stores
from puna.store.survey import survey

if TYPE_CHECKING:
    from puna.model.gguf import Header


def glance(models: Path, read_only: Sequence[Path] = ()) -> tuple[list[Listed], list[LeftOut]]:
    """Newest first. StoreError as `Library.open` raises it."""
    return survey(open_stores(models, read_only), Shelf(models / FILE_NAME), _header)


def _header(path: Path, what: str) -> Header:
    from puna.model.gguf import read_header

    with store_errors("reading a model file"):
        return read_header(path, name=what)
