"""Kept: a copy of each manifest as it was written here, to tell damage from change, and to mend it.

No digest names a manifest's file, and other programs may rewrite it. One whose bytes are not those that were written
here is damaged when it cannot be read, or names nothing that a copy does not name; else another program has changed it.
A store that cannot be written has no copies, and then only what cannot be read is damaged. Blocking.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from puna.errors import ModelFileError
from puna.model.manifest import Manifest, parse_manifest
from puna.model.name import Name
from puna.store.faults import Fault
from puna.store.files import remove_empty, write_file

DIRECTORY = "kept"


class Kept:
    """The copies of one store, in `directory`. Losing them loses no model."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._prefix = str(directory)

    def keep(self, name: Name, data: bytes) -> None:
        """Before the manifest itself is written. The last copy stays until the next time: a crash may come between."""
        before = self.copies(name)
        if data in before[:1]:
            return
        shape = [copy.decode("utf-8", "surrogateescape") for copy in (data, *before[:1])]
        with suppress(OSError):
            write_file(self._path(name), json.dumps(shape).encode())

    def copies(self, name: Name) -> tuple[bytes, ...]:
        """What was written under that Name, the last first. Empty when nothing is known."""
        # Lists look for those of thousands: texts, and no Path, which takes longer than this.
        path = "/".join((self._prefix, *name.parts))
        with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123
                shape = json.loads(file.read())
            return tuple(text.encode("utf-8", "surrogateescape") for text in shape)
        return ()

    def forget(self, name: Name) -> None:
        with suppress(OSError):
            self._path(name).unlink()
            remove_empty(self._path(name).parent, up_to=self.directory.parent)

    def tidy(self, names: Sequence[Name]) -> None:
        """Forget all but these."""
        known = {self._path(name) for name in names}
        with suppress(OSError):
            for path in self.directory.rglob("*"):
                if path.is_file() and path not in known:
                    path.unlink()
                    remove_empty(path.parent, up_to=self.directory.parent)

    def _path(self, name: Name) -> Path:
        return self.directory.joinpath(*name.parts)


def manifest_fault(data: bytes, copies: Sequence[bytes]) -> Fault | None:
    """What is wrong with the bytes of a manifest, of which `copies` were written here."""
    if data in copies:
        return None
    read = read_manifest(data, copies)
    return read if isinstance(read, Fault) else None


def read_manifest(data: bytes, copies: Sequence[bytes]) -> Manifest | Fault:
    """The same, or the Manifest. ModelFileError when it cannot be read though it is what was written here."""
    if data in copies:
        return parse_manifest(data)
    if data and not data.strip(b"\0"):
        return Fault("zeroed", "is damaged: it holds nothing but zeros")
    if any(len(data) < len(copy) and copy.startswith(data) for copy in copies[:1]):
        return Fault("truncated", f"is cut short: {len(data)} of {len(copies[0])} bytes are there")
    try:
        manifest = parse_manifest(data)
    except ModelFileError as error:
        return Fault("changed", f"is damaged: {error.message.removeprefix('damaged manifest: ')}")
    if copies and any(_named(manifest) <= known for known in map(_named_by, copies)):
        return Fault("changed", "is damaged: it is not the one that was stored")
    return manifest


def _named(manifest: Manifest) -> frozenset[str]:
    return frozenset(str(layer.digest) for layer in manifest.blobs)


def _named_by(copy: bytes) -> frozenset[str]:
    try:
        return _named(parse_manifest(copy))
    except ModelFileError:
        return frozenset()
