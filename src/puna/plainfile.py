"""Files that somebody else names: only regular ones are read, and of them no more than is meant.

To open a pipe waits for whoever writes to it; some files of `/proc` wait for the kernel; a file with holes may seem to
have a terabyte. So what a path leads to is looked at before anything is read, and nothing here waits.
"""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO
from pathlib import Path


class NotPlain(OSError):
    """It is no regular file, or has more bytes than it may; the text says which, after the path."""


def open_plain(path: Path | str) -> FileIO:
    """For reading, without a buffer. NotPlain if it is no regular file, else the OSError that opening raised.

    What would wait for somebody else gives None instead of bytes.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotPlain(errno.EINVAL, "not a regular file", str(path))
        return FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_plain(path: Path | str, most: int) -> bytes:
    """All of it. NotPlain if that is more than `most` bytes, or no regular file."""
    with open_plain(path) as file:
        data = bytearray()
        while len(data) <= most:
            block = file.read(most + 1 - len(data))
            if block is None:
                raise NotPlain(errno.EINVAL, "not a regular file", str(path))
            if not block:
                return bytes(data)
            data += block
    raise NotPlain(errno.EINVAL, f"larger than the {most} bytes that it may have", str(path))
