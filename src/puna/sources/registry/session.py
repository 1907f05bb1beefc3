"""UploadSession: an upload that a registry has begun, noted on the disk, so that a push after a kill goes on with it.

A directory of its own under the store's, `uploads/<hex>/`: `location`, where the registry wants the rest, as it said
last; `lock`, held by the one process that sends. How much the registry has only it can tell. Blocking, but short.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout
from yarl import URL

from puna.model.digest import Digest
from puna.sources.registry.endpoint import Endpoint
from puna.store.files import write_file

_MAX_BYTES = 64 * 1024


class UploadSession:
    """Held with `with`. One that another process holds, or a store that cannot be written, keeps nothing."""

    def __init__(self, directory: Path, endpoint: Endpoint, digest: Digest) -> None:
        key = f"{endpoint.base}\0{endpoint.repository}\0{digest}"
        self._directory = directory / hashlib.sha256(key.encode()).hexdigest()
        self._base = endpoint.base
        self._lock: FileLock | None = None

    def __enter__(self) -> UploadSession:
        with suppress(OSError, Timeout):
            self._directory.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._directory / "lock", mode=0o600, thread_local=False)
            lock.acquire(timeout=0)
            self._lock = lock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is noted stays. Nothing is left of one that has noted nothing."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if not self._file.exists():
            # While it is held: nobody else may take up what is about to go.
            shutil.rmtree(self._directory, ignore_errors=True)
        lock.release()
        with suppress(OSError):
            self._directory.rmdir()  # where a file that is open cannot be removed, it is empty only now
        with suppress(OSError):
            self._directory.parent.rmdir()

    @property
    def location(self) -> URL | None:
        """What was noted last, by whichever process; None: nothing, or no URL of the kind that registries name."""
        if self._lock is None:
            return None
        with suppress(OSError, ValueError), self._file.open("rb") as file:
            url = URL(file.read(_MAX_BYTES).decode(), encoded=True)
            if url.host and url.scheme in {"http", "https"} and (self._base.scheme, url.scheme) != ("https", "http"):
                return url
        return None

    def note(self, location: URL) -> None:
        """Instead of what was noted before. It may let in whoever has it: for this user's eyes only."""
        if self._lock is not None:
            with suppress(OSError):
                write_file(self._file, str(location).encode(), mode=0o600)

    def forget(self) -> None:
        """It has ended, well or for good."""
        if self._lock is not None:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)

    @property
    def _file(self) -> Path:
        return self._directory / "location"
