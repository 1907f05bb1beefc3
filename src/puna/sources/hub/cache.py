"""The hub's own cache of files on this machine, as its client lays it out. Only read.

`models--ORG--REPO/refs/main` holds a revision, `snapshots/REVISION/…` links to `blobs/…`, and a large file's blob is
called by the sha256 of its bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from puna.model.digest import Digest
from puna.plainfile import read_plain
from puna.sources.hub.repository import RepoFile, Repository, safe

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REVISION = re.compile(r"[0-9a-f]{40}")


_MAX_REF_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Cached:
    """The part of a cache that one repository has, there or not. `id`: 'ORG/REPO'."""

    cache: Path
    id: str

    @property
    def directory(self) -> Path:
        """In whichever case it is spelled there: the hub's names differ in more than case."""
        exact = self.cache / f"models--{self.id.replace('/', '--')}"
        if exact.is_dir() or not self.cache.is_dir():
            return exact
        wanted = exact.name.lower()
        return next((one for one in self.cache.iterdir() if one.name.lower() == wanted), exact)

    def blob(self, digest: Digest) -> Path | None:
        """The file with these bytes, as its name has it: they are to be hashed before they count."""
        path = self.directory / "blobs" / digest.hex.lower()
        return path if path.is_file() else None

    def file(self, revision: str, path: str) -> Path | None:
        found = self.directory / "snapshots" / revision / path
        return found if _REVISION.fullmatch(revision) and safe(path) and found.is_file() else None

    def repository(self, reference: str = "main") -> Repository | None:
        """What is there of the revision that a branch stood at when it was last asked for; None: nothing."""
        try:
            revision = read_plain(self.directory / "refs" / reference, _MAX_REF_BYTES).decode().strip()
        except (OSError, ValueError):
            return None
        root = self.directory / "snapshots" / revision
        if not _REVISION.fullmatch(revision) or not root.is_dir():
            return None
        files = [self._file(root, path) for path in sorted(root.rglob("*")) if path.is_file()]
        return Repository(id=self.directory.name[8:].replace("--", "/", 1), revision=revision, files=tuple(files))

    def _file(self, root: Path, path: Path) -> RepoFile:
        blob = path.resolve().name
        digest = Digest(blob) if _SHA256.fullmatch(blob) else None
        return RepoFile(path.relative_to(root).as_posix(), path.stat().st_size, digest)
