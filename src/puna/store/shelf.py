"""Shelf: what lists say of each model, kept in one file, so that a list reads manifests only where something changed.

An entry holds as long as its manifest and all of its blobs are the files that they were. Another version of Puna, which
may say more of a model, begins anew. Losing the file costs one longer list.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from os import stat
from pathlib import Path
from typing import Any

from puna import __version__
from puna.model.listed import Label
from puna.model.name import Name
from puna.store.files import write_file
from puna.store.stamp import Stamp
from puna.types import JsonValue

FILE_NAME = "listed.json"


class Glimpse:
    """One look at the disk: each file is asked about once, however many models it belongs to."""

    def __init__(self) -> None:
        self._stamps: dict[str, Stamp | None] = {}

    def stamp(self, path: str) -> Stamp | None:
        """None when it is not there."""
        try:
            return self._stamps[path]
        except KeyError:
            found: Stamp | None = None
            with suppress(OSError, ValueError):
                found = Stamp.told(stat(path))  # noqa: PTH116 - no Path, which takes longer than this
            self._stamps[path] = found
            return found


class Shelf:
    """The entries of one store, and of those beside it. A store that cannot be written keeps them for the process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._entries: dict[str, list[JsonValue]] | None = None
        self._lock = threading.Lock()

    def get(self, root: str, name: Name, manifest: Stamp, look: Glimpse) -> Label | None:
        """What was put there, if it still holds."""
        entry: Any = self._all().get(_key(root, name))
        if entry is None:
            return None
        try:
            inode, modified, size, files, label = entry
            if (inode, modified, size) != (manifest.inode, manifest.modified_ns, manifest.size):
                return None
            for path, *stamp in files:
                found = look.stamp(path)
                if found is None or [found.inode, found.modified_ns, found.size] != stamp:
                    return None
            return Label.load(label)
        except (ValueError, TypeError, AttributeError):
            return None  # whoever wrote that, it is no entry

    def put(self, root: str, name: Name, manifest: Stamp, files: Iterable[str], label: Label, look: Glimpse) -> None:
        """`files`: all that the model is made of. Without effect when one of them is not there."""
        noted: list[JsonValue] = []
        for path in files:
            found = look.stamp(path)
            if found is None:
                return
            noted.append([path, found.inode, found.modified_ns, found.size])
        entry: list[JsonValue] = [manifest.inode, manifest.modified_ns, manifest.size, noted, label.dump()]
        with self._lock:
            self._all()[_key(root, name)] = entry

    def save(self, names: Sequence[tuple[str, Name]]) -> None:
        """Keep the entries of these models, by store, and no others."""
        with self._lock, suppress(OSError):
            known = self._all()
            kept = {key: known[key] for key in (_key(root, name) for root, name in names) if key in known}
            self._entries = kept
            write_file(self._file, json.dumps({"version": __version__, "models": kept}).encode())

    def _all(self) -> dict[str, list[JsonValue]]:
        if self._entries is None:
            self._entries = {}
            with suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
                shape = json.loads(self._file.read_bytes())
                if shape["version"] == __version__ and isinstance(shape["models"], dict):
                    self._entries = shape["models"]
        return self._entries


def _key(root: str, name: Name) -> str:
    return f"{root}\0{name.full}"
