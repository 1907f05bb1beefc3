"""One request under way: a Generation, or a Scoring of a given text. It knows no other request and no thread.

A stream moves in three calls a step: `state` says how far it is, `advance` that so many tokens are computed, `take`
hands it the rows it wanted and gets back what to tell the caller.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu.cache import BLOCK, Cache, Table, WaitReason, prompt_keys
from puna.engine.cpu.plan import State
from puna.engine.cpu.sampler import Allowed, Drawn, Logits, Sampler, log_probabilities
from puna.engine.runner import End, Prefilled, Sampling
from puna.errors import PunaError
from puna.types import JsonObject


class Matcher(Protocol):
    """A Constraint at work on one answer."""

    def allowed(self) -> Allowed:
        """Which tokens may come next."""
        ...

    def accept(self, token: int) -> bool:
        """`token` has come. True when the answer is complete: nothing but its end may follow."""
        ...


@dataclass(frozen=True, slots=True)
class Scored:
    """Each token but the first after those before it, and the likeliest in its place."""

    tokens: tuple[Drawn, ...]


StreamEvent: TypeAlias = Prefilled | Drawn | End | Scored | PunaError
"""What a stream tells its caller. The last of an answer is an End, of a scoring its Scored; an error ends either."""


class Stream:
    """What both kinds share. `room`: tokens that its cache may come to hold. `ended`: nothing is left to do."""

    scored = False

    def __init__(self, number: int, tokens: Sequence[int], room: int) -> None:
        self.number = number
        self.tokens = list(tokens)
        self.prompt = len(tokens)
        self.room = room
        self.done = 0
        self.ended = False
        self._keys = () if self.scored else prompt_keys(tokens)
        self._table: Table | None = None

    @property
    def table(self) -> Table:
        assert self._table is not None, "not admitted"
        return self._table

    def admit(self, cache: Cache) -> WaitReason | None:
        """Take a place in the cache; or why not now."""
        table = cache.admit(self._keys, self.room, shareable=max(self.prompt - 2, 0) // BLOCK)
        if isinstance(table, WaitReason):
            return table
        self._table = table
        self.done = table.cached * BLOCK
        return None

    def release(self, cache: Cache) -> None:
        """Give the place back, if there is one."""
        if self._table is not None:
            cache.release(self._table)
            self._table = None

    @property
    def decoding(self) -> bool:
        return self.done >= self.prompt

    def state(self) -> State:
        return State(len(self.tokens), self.done, self.decoding, self.scored)

    def advance(self, count: int) -> None:
        """The next `count` tokens are in the cache."""
        self.done += count


class Generation(Stream):
    """Tokens after a prompt. `limit`: at most so many; `eos`: ids that end it."""

    def __init__(
        self,
        number: int,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        limit: int,
        eos: frozenset[int],
        matcher: Matcher | None = None,
    ) -> None:
        super().__init__(number, prompt, len(prompt) + limit - 1)  # the last token is never computed further
        self.matcher = matcher
        self._sampling = sampling
        self._sampler = Sampler(sampling, banned=sorted(eos) if sampling.ignore_eos else ())
        self._limit = limit
        self._eos = eos
        self._started = self._first = 0

    def admit(self, cache: Cache) -> WaitReason | None:
        self._started = time.perf_counter_ns()
        return super().admit(cache)

    def take(self, row: Logits, allowed: Allowed | None) -> list[StreamEvent]:
        """The next token from the row after the last one."""
        drawn = self._sampler(row, self.tokens, allowed)
        if not self._first:
            self._first = time.perf_counter_ns()
            return [self._prefilled(), *self._told(drawn)]
        return self._told(drawn)

    def _told(self, drawn: Drawn) -> list[StreamEvent]:
        if drawn.token in self._eos:
            return [self._end(complete=True)]
        self.tokens.append(drawn.token)
        complete = self.matcher is not None and self.matcher.accept(drawn.token)
        if complete or len(self.tokens) - self.prompt >= self._limit:
            return [drawn, self._end(complete)]
        return [drawn]

    def _prefilled(self) -> Prefilled:
        return Prefilled(self.prompt, self.table.cached * BLOCK, self._first - self._started)

    def _end(self, complete: bool) -> End:
        self.ended = True
        return End(
            reason="stop" if complete else "length",
            prompt_tokens=self.prompt,
            cached_tokens=self.table.cached * BLOCK,
            completion_tokens=len(self.tokens) - self.prompt,
            prompt_ns=self._first - self._started,
            decode_ns=time.perf_counter_ns() - self._first,
            settings=settings_used(self._sampling, self._limit),
        )


class Scoring(Stream):
    """The log-probabilities of a given text. Every row is wanted, so it is computed whole, and shares nothing."""

    scored = True

    def __init__(self, number: int, tokens: Sequence[int], top: int) -> None:
        super().__init__(number, tokens, len(tokens))
        self._top = top
        self._found: list[Drawn] = []

    @property
    def decoding(self) -> bool:
        return False

    def take(self, rows: NDArray[np.float32], start: int) -> list[StreamEvent]:
        """Rows of the tokens from `start` on, each for the token that follows it."""
        for row, token in zip(rows, self.tokens[start + 1 :], strict=False):
            self._found.append(log_probabilities(row, token, self._top))
        if self.done < self.prompt:
            return []
        self.ended = True
        return [Scored(tuple(self._found))]


def settings_used(sampling: Sampling, limit: int) -> JsonObject:
    """What a generation ran with, by llama.cpp's names. With Mirostat on, temperature and bias alone act besides it."""
    return sampling.settings() | {"max_tokens": limit}
