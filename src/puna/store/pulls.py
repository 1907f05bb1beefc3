"""Pulls: which models were pulled, from where, as what: so that a newer one can be told from one's own work.

One small file beside the manifests, rewritten in one step. It says what a source brought under a Name; a manifest that
has another digest by now was made here, or by another program. Losing it loses no model. Blocking.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from puna.model.digest import Digest
from puna.model.name import Name
from puna.store.files import write_file
from puna.store.stamp import Stamp

FILE_NAME = "pulls.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """`source`: its title. `manifest`: what it brought. `revision`: what it calls that; None: nothing."""

    source: str
    manifest: Digest
    revision: str | None = None


class Pulls:
    """The notes of one store, in `file`. A store that cannot be written keeps none."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._known: tuple[Stamp, dict[str, list[str | None]]] | None = None

    def of(self, name: Name) -> Pulled | None:
        """What was pulled last under that Name."""
        with suppress(KeyError, TypeError, AttributeError, IndexError):
            source, manifest, revision = self._read()["/".join(name.folded)]
            return Pulled(source=str(source), manifest=Digest(str(manifest)), revision=revision)
        return None

    def note(self, name: Name, pulled: Pulled) -> None:
        """Instead of what was noted of that Name before."""
        with self._lock, suppress(OSError):
            notes = self._read() | {"/".join(name.folded): [pulled.source, pulled.manifest.hex, pulled.revision]}
            write_file(self._file, json.dumps(notes, indent=0, sort_keys=True).encode())

    def _read(self) -> dict[str, list[str | None]]:
        # A note that cannot be read is as good as none.
        with suppress(OSError, ValueError, RecursionError):
            stamp, known = Stamp.of(self._file), self._known
            if known is not None and known[0] == stamp:
                return known[1]
            notes = json.loads(self._file.read_bytes())
            if isinstance(notes, dict):
                self._known = (stamp, notes)
                return notes
        return {}
