"""Files of strangers, each read by a process of its own, within bounds: bytes go in, what is read of them comes out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from puna.children import spawned
from puna.engine import leash
from puna.engine.confines import OVER_TIME, bound_memory, bound_time
from puna.engine.process import child_environment, python
from puna.errors import Overloaded, PunaError
from puna.shortage import ends_first
from puna.standstill import processor_seconds

READ, BROKEN, TOO_LARGE = 0, 3, 4
"""Return codes: what is read is told; what is wrong is told; it takes more memory than it may, or is too long."""


@dataclass(frozen=True, slots=True)
class Rations:
    """`cpu_seconds`: of a processor. `wait_seconds`: for which it is waited; that is for a process that the system does
    not let run. `room`: bytes of memory beyond those that the process has when it begins."""

    cpu_seconds: float
    wait_seconds: float
    room: int


class Unreadable(PunaError):
    """What is wrong with a file, in the words of what reads it."""


class TakesTooMuch(PunaError):
    """Which bound it takes more than."""


class Overlong(Exception):
    """In the process: there is more than may come out."""


def read_beside(module: str, data: bytes, bounds: Rations, what: str, *arguments: str) -> bytes:
    """What `module`, run as a program, reads of `data`. Blocking. Unreadable, TakesTooMuch; Overloaded names `what`."""
    with spawned(
        python(module, str(bounds.cpu_seconds), str(bounds.room), *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(os.environ),
    ) as done:
        ends_first(done.pid)
        try:
            told: bytes = done.communicate(data, bounds.wait_seconds)[0]
        except subprocess.TimeoutExpired:
            if processor_seconds(done.pid) > 2 * bounds.cpu_seconds:  # where the system does not bound it
                raise TakesTooMuch("too long") from None
            raise Overloaded(
                f"the system let the process that reads {what} run too little in {bounds.wait_seconds:g} s: try again"
            ) from None
        finally:
            done.kill()
    if done.returncode == BROKEN:
        raise Unreadable(told.decode("utf-8", "replace"))
    if done.returncode == OVER_TIME:
        raise TakesTooMuch(f"more than {bounds.cpu_seconds:g} s of a processor")
    if done.returncode != READ:
        raise TakesTooMuch(f"more than {bounds.room >> 20} MB of memory")
    return told


def told_within(read: Callable[[bytes], bytes]) -> int:
    """The process: `read` what is on its stdin, within the bounds that its first two arguments are. Its return code.

    `read` imports nothing more: under the bound of memory there may be no room for it.
    """
    leash.ignore_interrupt()
    seconds, room = float(sys.argv[1]), int(sys.argv[2])
    bound_memory(room)
    bound_time(seconds)
    try:
        told, code = read(sys.stdin.buffer.read()), READ
    except (MemoryError, Overlong):
        return TOO_LARGE
    except Exception as error:  # noqa: BLE001 - whatever a reader makes of a stranger's bytes
        told, code = (str(error) or type(error).__name__).encode("utf-8", "replace"), BROKEN
    sys.stdout.buffer.write(told)
    return code
