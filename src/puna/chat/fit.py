"""Whether messages fit the context, and which are left out when they need not all be there. Pure.

Two rules. `/v1`: what does not fit is refused. Native (Ollama's): the oldest turns go first, whole; every system
message before the first one kept stays, and the last message always does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from puna.errors import ContextLengthExceeded
from puna.types import Message

_GUESSES = 4
"""How often what messages have come to tells which to try, before their number is halved."""


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


class Cut:
    """Looks for the first message to keep, so that as many as fit are kept: which to try next, told what came of it.

    From the end on, twice as many each time; then by what the messages have come to, and by halving where these differ
    much. So what is tried is seldom much longer than what fits: to tokenise it takes an engine seconds.
    """

    def __init__(self, last: int, tokens: int, num_ctx: int) -> None:
        """`last`: the number of the last message, which is kept in any case; `tokens`: of a prompt of it alone."""
        self._last, self._num_ctx = last, num_ctx
        self._low, self._high = 1, max(last, 0)
        self._fitted = [(self._high, tokens)]
        self._missed = False
        self._guesses = 0

    @property
    def next(self) -> int | None:
        """The message to begin with; None: no more than what was last found to fit does."""
        if self._low >= self._high:
            return None
        return max(self._low, min(self._high - 1, self._wanted()))

    def _wanted(self) -> int:
        if not self._missed:
            return self._high - (self._last - self._high + 1)
        self._guesses += 1
        (later, fewer), (first, tokens) = self._fitted[-2:] if len(self._fitted) > 1 else self._fitted * 2
        if self._guesses > _GUESSES or tokens <= fewer:
            return (self._low + self._high) // 2
        each = (tokens - fewer) / (later - first)
        return first - int((self._num_ctx - 1 - tokens) / each)

    def fits(self, first: int, tokens: int) -> None:
        """`tokens`: what the prompt that begins with message `first` comes to."""
        self._high = first
        self._fitted.append((first, tokens))

    def misses(self, first: int) -> None:
        self._low, self._missed = first + 1, True


def room(prompt_tokens: int, num_ctx: int, wanted: int | None) -> int:
    """How many tokens may be generated. `wanted` None or negative: until the context is full."""
    free = num_ctx - prompt_tokens
    return free if wanted is None or wanted < 0 else min(wanted, free)
