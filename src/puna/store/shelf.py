"""Shelf: what lists say of each model, kept in one file, so that a list reads manifests only where something changed.

An entry holds as long as its manifest and all of its blobs are the files that they were. Names with one manifest share
what is said of it, and models the files that they have in common: thousands are noted, and each file is asked about
once. Another version of Puna, which may say more of a model, begins anew. Losing the file costs one longer list.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from os import stat
from pathlib import Path
from typing import Any

from puna import __version__
from puna.model.listed import Label
from puna.model.name import Name
from puna.store.files import write_file
from puna.store.stamp import Stamp, StampedFile

FILE_NAME = "listed.json"


@dataclass(slots=True)
class _Notes:
    """As they lie in the file. `models`: by store and Name, the stamp of the manifest, and which of `labels` it has.

    `labels`: which of `files` the model is made of, and what is said of it. `files`: where each is, and its stamp.
    """

    models: dict[str, Any] = field(default_factory=dict)
    labels: list[Any] = field(default_factory=list)
    files: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, shape: Any) -> _Notes:
        """From the file. ValueError, TypeError or KeyError when one of them leads to another that is not there."""
        models, labels, files = shape["models"], shape["labels"], shape["files"]
        lists = isinstance(labels, list) and isinstance(files, list)
        if shape["version"] != __version__ or not isinstance(models, dict) or not lists:
            raise ValueError("of another version")
        of_models = {label for _, _, _, label in models.values()}
        of_labels = {file for rows, _ in labels for file in rows}
        paths = {path for path, _, _, _ in files}
        there = _numbers(of_models, labels) and _numbers(of_labels, files)
        if not there or not all(isinstance(path, str) for path in paths):
            raise ValueError("not what was written")
        return cls(models, labels, files)

    def only(self, keys: Iterable[str]) -> _Notes:
        """Of these models, and of what they have."""
        labels: dict[int, int] = {}
        files: dict[int, int] = {}
        kept = _Notes()
        for key in keys:
            if (entry := self.models.get(key)) is not None:
                *stamp, label = entry
                kept.models[key] = [*stamp, labels.setdefault(label, len(labels))]
        for label in labels:
            rows, said = self.labels[label]
            kept.labels.append([[files.setdefault(row, len(files)) for row in rows], said])
        kept.files = [self.files[row] for row in files]
        return kept


class ShelfLook:
    """One look at the disk: each file is asked about once, however many models it belongs to."""

    def __init__(self, notes: _Notes) -> None:
        self._notes = notes
        self._labels: dict[int, Label | None] = {}
        self._files: dict[int, bool] = {}

    def label(self, root: str, name: Name, manifest: Stamp) -> Label | None:
        """What was put there, if it still holds."""
        entry = self._notes.models.get(_key(root, name))
        if entry is None:
            return None
        *stamp, number = entry
        if stamp != [*manifest]:
            return None
        if number not in self._labels:
            files, said = self._notes.labels[number]
            self._labels[number] = _loaded(said) if all(map(self._holds, files)) else None
        return self._labels[number]

    def _holds(self, number: int) -> bool:
        holds = self._files.get(number)
        if holds is None:
            path, *noted = self._notes.files[number]
            try:
                holds = noted == [*Stamp.told(stat(path))]  # noqa: PTH116 - no Path, which takes longer than this
            except (OSError, ValueError, TypeError):
                holds = False
            self._files[number] = holds
        return holds


class Shelf:
    """The entries of one store, and of those beside it. A store that cannot be written keeps them for the process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._notes: _Notes | None = None
        # Where among the notes that is which was put there since they were saved.
        self._labels: dict[tuple[str, tuple[StampedFile, ...]], int] = {}
        self._files: dict[StampedFile, int] = {}
        self._lock = threading.Lock()

    def look(self) -> ShelfLook:
        return ShelfLook(self._all())

    def put(self, root: str, name: Name, manifest: Stamp, files: tuple[StampedFile, ...], label: Label) -> None:
        """`files`: all that the model is made of, as they were before they were read."""
        with self._lock:
            notes = self._all()
            number = self._labels.get((label.digest, files))
            if number is None:
                number = self._labels[label.digest, files] = len(notes.labels)
                notes.labels.append([[self._row(notes, one) for one in files], label.dump()])
            notes.models[_key(root, name)] = [*manifest, number]

    def save(self, names: Sequence[tuple[str, Name]]) -> None:
        """Keep the entries of these models, by store, and no others."""
        with self._lock, suppress(OSError):
            self._notes = notes = self._all().only(_key(root, name) for root, name in names)
            self._labels, self._files = {}, {}
            shape = {"version": __version__, "models": notes.models, "labels": notes.labels, "files": notes.files}
            write_file(self._file, json.dumps(shape, separators=(",", ":")).encode())

    def _row(self, notes: _Notes, one: StampedFile) -> int:
        row = self._files.get(one)
        if row is None:
            row = self._files[one] = len(notes.files)
            notes.files.append([one.path, *one.stamp])
        return row

    def _all(self) -> _Notes:
        if self._notes is None:
            self._notes = _Notes()
            with suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
                self._notes = _Notes.of(json.loads(self._file.read_bytes()))
        return self._notes


def _key(root: str, name: Name) -> str:
    return f"{root}\0{name.full}"


def _numbers(found: Iterable[object], of: Sequence[object]) -> bool:
    return all(type(number) is int and 0 <= number < len(of) for number in found)


def _loaded(said: Any) -> Label | None:
    try:
        return Label.load(said)
    except (ValueError, TypeError):
        return None  # whoever wrote that, it is no label
