"""Files that somebody else names: only regular ones are read, and of them no more than is meant.

To open a pipe waits for whoever writes to it; some files of `/proc` wait for the kernel; a file with holes may seem to
have a terabyte that nobody wrote. So what a path leads to is looked at before anything is read, and nothing here waits.
"""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO
from pathlib import Path

_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY", "O_CLOEXEC"))
_BLOCK = 1 << 12
_SECTOR = 512
_LARGE = 1 << 30
_HELD = 8
"""Of so many bytes of a large file that is read as it stands the disk must hold one at least."""


class NotPlain(OSError):
    """It is no regular file, or has more bytes than it may, or than were written; the text says so, after the path."""


def open_plain(path: Path | str, *, whole: bool = False) -> FileIO:
    """For reading, without a buffer. NotPlain if it is no regular file, else the OSError that opening raised.

    `whole`: to its end. NotPlain then for a large one too that is nearly all hole.

    What would wait for somebody else gives None instead of bytes.
    """
    descriptor, size = _opened(path)
    try:
        if whole and size >= _LARGE and _hollow(descriptor, size):
            raise NotPlain(errno.EINVAL, f"nearly all hole: its {size} bytes were never written", str(path))
        return FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_plain(path: Path | str, most: int) -> bytes:
    """All of it. NotPlain if that is more than `most` bytes, or no regular file."""
    # Thousands are read for a list: without an object for each.
    descriptor, size = _opened(path)
    try:
        blocks: list[bytes] = []
        have = 0
        while have <= most:
            # A file of `/proc` says that it has none.
            block = os.read(descriptor, min(most, max(size, _BLOCK)) + 1)
            if not block:
                return b"".join(blocks)
            blocks.append(block)
            have += len(block)
            if have == size <= most:
                return b"".join(blocks)  # more was asked for
    except BlockingIOError:
        raise NotPlain(errno.EINVAL, "not a regular file", str(path)) from None
    finally:
        os.close(descriptor)
    raise NotPlain(errno.EINVAL, f"larger than the {most} bytes that it may have", str(path))


def _opened(path: Path | str) -> tuple[int, int]:
    """The descriptor, and the size as the system has it."""
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotPlain(errno.EINVAL, "not a regular file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status.st_size


def _hollow(descriptor: int, size: int) -> bool:
    """Whether the disk holds almost nothing of it, and there is a hole where that would lie."""
    held = getattr(os.fstat(descriptor), "st_blocks", size) * _SECTOR
    if held * _HELD >= size or not hasattr(os, "SEEK_HOLE"):
        return False
    try:
        # Not all file systems tell their blocks; one that cannot tell holes says that there is none but at the end.
        return os.lseek(descriptor, 0, os.SEEK_HOLE) * _HELD < size
    except OSError:
        return False
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
