"""Manifests: the directory that maps a Name to its manifest's bytes, `<host>/<namespace>/<model>/<tag>`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from os import sep, stat, walk
from pathlib import Path
from stat import S_ISREG

from puna.errors import InvalidName, ModelDamaged
from puna.model.manifest import MAX_MANIFEST_BYTES
from puna.model.name import Name
from puna.plainfile import NotPlain, read_plain
from puna.store.files import is_temporary, remove_empty, store_error, write_errors, write_file
from puna.store.stamp import Stamp

_DEEPEST = 8


class Manifests:
    """The manifests of one store. Names are looked up exactly; `spelled` finds the spelling that is stored."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._prefix = str(directory)

    def path(self, name: Name) -> Path:
        return self.directory.joinpath(*name.parts)

    def stamp(self, name: Name) -> Stamp | None:
        """None when there is no such manifest."""
        # Every request looks: once, and with no more than it takes.
        try:
            status = stat(self._path(name))  # noqa: PTH116 - no Path, which takes longer than this
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise store_error(f"looking for the manifest of {name.short}", error) from error
        return Stamp.told(status) if S_ISREG(status.st_mode) else None

    def read(self, name: Name) -> bytes:
        """ModelDamaged when it is too large to be one, or no file; StoreError when it cannot be read."""
        try:
            return read_plain(self._path(name), MAX_MANIFEST_BYTES)
        except NotPlain as error:
            raise ModelDamaged(f"the manifest of {name.short} is damaged: it is {error.strerror}") from error
        except OSError as error:
            raise store_error(f"reading the manifest of {name.short}", error) from error

    def write(self, name: Name, data: bytes) -> None:
        """In one step."""
        with write_errors(f"writing the manifest of {name.short}"):
            write_file(self.path(name), data)

    def remove(self, name: Name) -> bool:
        """And the directories that are empty then. False when it was not there (any more)."""
        with write_errors(f"removing the manifest of {name.short}"):
            try:
                self.path(name).unlink()
            except (FileNotFoundError, NotADirectoryError):
                return False
        remove_empty(self.path(name).parent, up_to=self.directory.parent)
        return True

    def names(self) -> list[Name]:
        """All, in no order. What is not four levels deep or no Name is skipped."""
        return list(self._names())

    def stamped(self) -> Iterator[tuple[Name, Stamp]]:
        """All, each with the stamp of its manifest; what goes meanwhile is left out."""
        for name in self._names():
            if (stamp := self.stamp(name)) is not None:
                yield name, stamp

    def has_strays(self) -> bool:
        """Whether a file lies among the manifests that is none: then nobody can tell what is in use."""
        files = [path for path in self._files() if not is_temporary(path)]
        known = {self.path(name) for name in self._names()}
        return any(path not in known and path.is_file() for path in files)

    def temporary(self) -> list[Path]:
        """What a crash while writing left behind, or another process is writing now."""
        return [path for path in self._files() if is_temporary(path)]

    def spelled(self, name: Name) -> Name:
        """The stored Name that is the same but for case; else each part as a stored manifest spells it, if one does."""
        if self.stamp(name) is not None:
            return name
        stored = self.names()
        same = next((other for other in stored if other.folded == name.folded), None)
        if same is not None:
            return same
        spellings = ({other.folded[i]: other.parts[i] for other in stored} for i in range(4))
        return Name.of(*(known.get(part.lower(), part) for part, known in zip(name.parts, spellings, strict=True)))

    def _path(self, name: Name) -> str:
        """For what is done for each of thousands: a Path takes longer than to read what is there."""
        return "/".join((self._prefix, *name.parts))

    def _names(self) -> Iterator[Name]:
        # Stores of thousands are listed: texts, and no Path, which takes longer than all the rest.
        start = len(self._prefix) + 1
        for directory, below, names in walk(self._prefix, followlinks=True):
            parts = directory[start:].replace(sep, "/").split("/") if len(directory) > start else []
            if len(parts) == 3:
                below.clear()
                for name in names:
                    with suppress(InvalidName):
                        yield Name.of(parts[0], parts[1], parts[2], name)

    def _files(self) -> Iterator[Path]:
        """All files below; a directory that goes meanwhile is none."""
        top = len(self.directory.parts)
        for directory, below, names in walk(self.directory, followlinks=True):
            path = Path(directory)
            if len(path.parts) - top > _DEEPEST:
                below.clear()  # a link that leads back, perhaps
            yield from (path / name for name in names)
