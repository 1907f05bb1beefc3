"""Whether messages fit the context, and which are left out when they need not all be there. Pure.

Two rules. `/v1`: what does not fit is refused. Native (Ollama's): the oldest turns go first, whole; every system
message before the first one kept stays, and the last message always does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from puna.errors import ContextLengthExceeded
from puna.types import Message


def check_fit(tokens: int, num_ctx: int, *, param: str = "messages", what: str = "messages") -> None:
    """A prompt must leave room for one token at least. Raises ContextLengthExceeded."""
    if tokens >= num_ctx:
        raise ContextLengthExceeded(tokens, num_ctx, param=param, what=what)


def system_places(messages: Sequence[Message]) -> list[int]:
    """The numbers of the system messages, in order."""
    return [place for place, message in enumerate(messages) if message.role == "system"]


def kept_from(messages: Sequence[Message], first: int, systems: Sequence[int]) -> tuple[Message, ...]:
    """The messages from number `first` on, after the system messages before it.

    `systems`: their `system_places`, found once: of a long conversation this is asked many times.
    """
    return (*(messages[place] for place in systems[: bisect_left(systems, first)]), *messages[first:])


def room(prompt_tokens: int, num_ctx: int, wanted: int | None) -> int:
    """How many tokens may be generated. `wanted` None or negative: until the context is full."""
    free = num_ctx - prompt_tokens
    return free if wanted is None or wanted < 0 else min(wanted, free)
