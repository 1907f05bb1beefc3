"""How much memory could be had now: what the system has free, or a container's limit if that leaves less."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path("/")


def free_memory() -> int:
    """Bytes. OSError where the system cannot be asked."""
    return min([int(psutil.virtual_memory().available), *left_of_groups(ROOT), *left_of_processes()])


_RUNNERS_OWN = 768 << 20
"""Addresses that a runner takes before it has loaded anything: libraries, stacks of threads, arenas."""


def left_of_processes() -> Iterator[int]:
    """Bytes that one runner may have by the limit of addresses (`ulimit -v`) that it gets from this process."""
    if sys.platform == "win32":
        return
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        yield max(most - _RUNNERS_OWN, 0)


def left_of_groups(root: Path) -> Iterator[int]:
    """Bytes that are left to each control group (Linux) this process is in and that has a limit.

    Pages of files that the group could give back do not count as used. `root`: where /proc and /sys are.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            # Above the second, what the group does is slowed down until it stands still: as good as the end.
            for limit in ("memory.max", "memory.high"):
                yield from _left(root / "sys/fs/cgroup", path, limit, "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left(root / "sys/fs/cgroup/memory", path, *files)


def _read(path: Path) -> str:
    """'' where there is no such file. OSError where no file can be opened: that is no word about limits."""
    try:
        return path.read_text()
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
            raise
        return ""


def _left(mount: Path, path: str, limit: str, used: str, reclaimable: str) -> Iterator[int]:
    """Of the group at `path` and of those above it, as far as they are seen from here."""
    group = mount / path.lstrip("/")
    for directory in (group, *group.parents):
        if not directory.is_relative_to(mount):
            return
        # A group without a limit says "max"; the outermost has no such files.
        with suppress(ValueError):
            most = int(_read(directory / limit))
            words = _read(directory / "memory.stat").split()
            given_back = int(words[words.index(reclaimable) + 1]) if reclaimable in words else 0
            yield max(most - int(_read(directory / used)) + given_back, 0)
