"""Memory of this process's own, on huge pages where the system has them: a step reads all weights once a token."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys

import numpy as np
from numpy.typing import NDArray

HUGE = 1 << 21
"""Bytes of a huge page, of the systems that have them."""

LINE = 64
"""Bytes of a cache line: what the native library wants its matrices to begin on."""


def room(size: int) -> NDArray[np.uint8]:
    """`size` bytes of zeros from the edge of a cache line on. The system gives the memory when it is first written.

    MemoryError when there is none. It is given back with the last array over it.
    """
    if sys.platform == "linux" and size >= HUGE:
        try:
            # Anonymous memory is shared unless told otherwise, and shared memory gets no huge pages.
            held = mmap.mmap(-1, size + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"no memory for {size} bytes") from error
        raw, edge = np.frombuffer(held, np.uint8), HUGE
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without them
                held.madvise(mmap.MADV_HUGEPAGE)
    else:
        raw, edge = np.zeros(size + LINE, np.uint8), LINE
    start = -raw.ctypes.data % edge
    return raw[start : start + size]


def give_back() -> None:
    """Let the system have what this process has freed, where the C library keeps it and can be asked (glibc)."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
