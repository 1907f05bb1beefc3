"""Who asks: which request a task works for, and until when. The server says it; leases are taken in its name."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Caller:
    """`request`: the id of a request, '' for none. `deadline`: a time of the event loop; nothing begins from it on."""

    request: str = ""
    deadline: float = inf


NOBODY = Caller()

_CURRENT: ContextVar[Caller] = ContextVar("caller", default=NOBODY)


def calls(caller: Caller) -> None:
    """The current task, and all that it starts, works for this one."""
    _CURRENT.set(caller)


def current_caller() -> Caller:
    return _CURRENT.get()
