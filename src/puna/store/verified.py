"""Verified: which blob files are known to hold what their name says, so that a load need not hash them again.

A file is hashed when it is first loaded, and again when its inode, time or size changed since. What was found is kept
in one small file beside the blobs; losing it costs one more hashing. Blocking and safe to call from several threads.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

from puna.errors import ModelFileError
from puna.model.digest import Digest
from puna.store.blobs import hash_file
from puna.store.files import store_errors, write_file
from puna.store.manifests import Stamp

FILE_NAME = "verified.json"


class Verified:
    """Notes of which blobs were hashed and are intact.

    `file`: where to remember. A store that cannot be written remembers for the life of the process only.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, Stamp] | None = None
        self._lock = threading.Lock()

    def check(self, path: Path, what: str = "") -> None:
        """Hash the blob at `path` unless that was done. ModelFileError when it is not what its name says.

        `what`: the file in its user's words.
        """
        expected = Digest.parse(path.name)
        with self._lock, store_errors(f"reading blob {expected}"):
            known = self._remembered()
            before = Stamp.of(path)
            if known.get(str(path)) == before:
                return
            found = hash_file(path)
            if found.hex != expected.hex.lower():
                raise ModelFileError(
                    f"{what or f'the blob {expected}'} is damaged: its bytes are not those that were stored. "
                    "Remove the model and pull or create it again."
                )
            if Stamp.of(path) == before:
                known[str(path)] = before
                self._remember(known)

    def _remembered(self) -> dict[str, Stamp]:
        if self._known is None:
            self._known = {}
            # A note that cannot be read is as good as none: everything is hashed once more.
            with suppress(OSError, ValueError, TypeError, AttributeError):
                stored = json.loads(self._file.read_text("utf-8"))
                self._known = {path: Stamp(*stamp) for path, stamp in stored.items()}
        return self._known

    def _remember(self, known: dict[str, Stamp]) -> None:
        kept = {path: stamp for path, stamp in known.items() if Path(path).exists()}
        self._known = kept
        with suppress(OSError):
            write_file(self._file, json.dumps({path: astuple(stamp) for path, stamp in kept.items()}).encode() + b"\n")
