"""Partial: a blob on its way: what is on the disk of it, part by part, so that a killed download goes on from there.

A directory of its own under the store's, `partial/<hex>/`: `data`, a sparse file as long as the blob; `done`, how many
bytes of each part are in it, written after the bytes are; `lock`, held by the one process that works on it. Blocking.
"""

from __future__ import annotations

import os
import shutil
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from filelock import FileLock, Timeout

from puna.model.digest import Digest
from puna.store.files import write_errors

_MAGIC = b"puna-part-1\n"
_HEAD = struct.Struct("<12sQQ")
_COUNT = struct.Struct("<Q")


class Partial:
    """Opened by `open`, ended by `close`, which keeps it for the next time, or `remove`.

    `done`: bytes of each part that are on the disk, from its start on. Writing is safe from several threads, each part
    by one at a time.
    """

    def __init__(self, directory: Path, digest: Digest, size: int, part_size: int) -> None:
        self.directory = directory / digest.hex.lower()
        self.size = size
        self.part_size = part_size
        self.done: list[int] = []
        self._held: _Held | None = None
        self._writing = threading.Lock()

    @property
    def path(self) -> Path:
        """The file of its bytes."""
        return self.directory / "data"

    @property
    def held(self) -> int:
        """Bytes of the disk that it has, without a look at what they are."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return 0
        return getattr(status, "st_blocks", 0) * 512

    def try_open(self) -> bool:
        """Take up what is there, or begin. False while another process has it. StoreError: the disk."""
        with write_errors("making room for a download"):
            self.directory.mkdir(parents=True, exist_ok=True)
            # Taken in one thread and let go of in another: by default a lock knows only of the thread that took it.
            lock = FileLock(self.directory / "lock", mode=0o644, thread_local=False)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return False
            except FileNotFoundError:  # whoever had it has finished, and removed it
                return False
            try:
                self._held = _Held(lock, _file(self.path), _file(self.directory / "done"))
                self._take_up()
            except BaseException:
                lock.release()
                raise
        return True

    @property
    def _files(self) -> _Held:
        assert self._held is not None, "only between try_open and close"
        return self._held

    def _take_up(self) -> None:
        files = self._files
        parts = -(-self.size // self.part_size)
        stored = files.counts.read()
        head = _HEAD.pack(_MAGIC, self.size, self.part_size)
        whole = len(stored) == len(head) + parts * _COUNT.size and stored.startswith(head)
        if whole and self.path.stat().st_size == self.size:
            counts = [_COUNT.unpack_from(stored, len(head) + i * _COUNT.size)[0] for i in range(parts)]
            if all(count <= self.length(part) for part, count in enumerate(counts)):
                self.done = counts
                return
        self.restart()

    def restart(self) -> None:
        """Nothing of it is there any more."""
        files = self._files
        parts = -(-self.size // self.part_size)
        with write_errors("making room for a download"):
            files.counts.truncate(0)
            files.data.truncate(0)
            files.data.truncate(self.size)
            files.counts.seek(0)
            files.counts.write(_HEAD.pack(_MAGIC, self.size, self.part_size) + bytes(parts * _COUNT.size))
        self.done = [0] * parts

    def length(self, part: int) -> int:
        """Bytes that a part has when it is whole."""
        return min(self.part_size, self.size - part * self.part_size)

    @property
    def completed(self) -> int:
        """Bytes on the disk."""
        return sum(self.done)

    @property
    def unfinished(self) -> list[int]:
        return [part for part, count in enumerate(self.done) if count < self.length(part)]

    def frontier(self, start: int) -> int:
        """Up to where all bytes are there, seen from `start`, up to where they are known to be."""
        part = start // self.part_size
        while part < len(self.done) and self.done[part] == self.length(part):
            part += 1
        return min(self.size, part * self.part_size + (self.done[part] if part < len(self.done) else 0))

    def write(self, at: int, data: bytes | bytearray) -> None:
        """Bytes of the blob from `at` on; what is there already is left out. StoreError: the disk, as when it is full.

        `at` is no further than the end of what is there of its part.
        """
        view = memoryview(data)
        with write_errors("writing a download"):
            while view:
                part = at // self.part_size
                inside = at - part * self.part_size
                piece = view[: self.length(part) - inside]
                new = piece[max(0, self.done[part] - inside) :]
                if new:
                    self._put(part, at + len(piece) - len(new), new)
                at, view = at + len(piece), view[len(piece) :]

    def _put(self, part: int, at: int, data: memoryview) -> None:
        files = self._files
        count = self.done[part] + len(data)
        # The count after the bytes: a kill in between costs them again, and nothing else.
        if hasattr(os, "pwrite"):
            while data:
                written = os.pwrite(files.data.fileno(), data, at)
                at, data = at + written, data[written:]
        with self._writing:
            if data:
                files.data.seek(at)
                while data:
                    data = data[files.data.write(data) :]
            files.counts.seek(_HEAD.size + part * _COUNT.size)
            files.counts.write(_COUNT.pack(count))
        self.done[part] = count

    def sync(self) -> None:
        """Have the bytes on the disk itself."""
        files = self._files
        with write_errors("writing a download"):
            os.fsync(files.data.fileno())

    def close(self) -> None:
        """Let go of it. What is there stays."""
        held, self._held = self._held, None
        if held is not None:
            held.data.close()
            held.counts.close()
            held.lock.release()

    def remove(self) -> None:
        """And what is there of it goes."""
        held, self._held = self._held, None
        if held is not None:
            held.data.close()
            held.counts.close()
            _remove(self.directory, held.lock)


def remove_leftover(directory: Path, digest: Digest) -> None:
    """What a kill at the very end of a download left beside the blob, which is whole. Another process keeps its own."""
    left = directory / digest.hex.lower()
    if left.is_dir():
        lock = FileLock(left / "lock", mode=0o644, thread_local=False)
        with suppress(Timeout, OSError):
            lock.acquire(timeout=0)
            _remove(left, lock)
    else:
        with suppress(OSError):
            directory.rmdir()  # the kill came after the last of it was removed


def _remove(directory: Path, lock: FileLock) -> None:
    # While it is held: nobody else may take up what is about to go.
    shutil.rmtree(directory, ignore_errors=True)
    lock.release()
    shutil.rmtree(directory, ignore_errors=True)  # where a file that is open cannot be removed
    with suppress(OSError):
        directory.parent.rmdir()


@dataclass(frozen=True, slots=True)
class _Held:
    lock: FileLock
    data: FileIO
    counts: FileIO


def _file(path: Path) -> FileIO:
    path.touch(mode=0o644)
    return FileIO(path, "r+")
