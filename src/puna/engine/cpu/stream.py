"""One request under way: a Generation, a Scoring of a given text, or a Weighing of what may follow one. It knows no
other request and no thread.

A stream moves in three calls a step: `state` says how far it is, `orders` what it wants of the rows that are computed,
`take` hands it what was found in them and gets back what to tell the caller. (`advance`: where no row was wanted.)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from puna.engine.cpu.cache import BlockKey, Cache, OnDisk, Table, WaitReason, block_keys, end_key, nowhere
from puna.engine.cpu.choice import Draw, Rate
from puna.engine.cpu.guess import Guesser
from puna.engine.cpu.history import History
from puna.engine.cpu.mask import Mask
from puna.engine.cpu.plan import Advance, Span
from puna.engine.cpu.sampler import Drawn, Sampler
from puna.engine.cpu.states import Holding
from puna.engine.runner import End, Prefilled, Sampling, Weighed
from puna.errors import PunaError
from puna.types import JsonObject


class Matcher(Protocol):
    """A Constraint at work on one answer."""

    def mask(self) -> Mask:
        """Which tokens may come next."""
        ...

    def accept(self, token: int) -> bool:
        """`token` has come. True when the answer is complete: nothing but its end may follow."""
        ...

    def follows(self, tokens: Sequence[int]) -> int:
        """How many of these, from the first on, could come next, one after the other."""
        ...

    def fork(self) -> Matcher:
        """Another at the same place, which goes its own way."""
        ...


@dataclass(frozen=True, slots=True)
class Scored:
    """Each token but the first after those before it, and the likeliest in its place."""

    tokens: tuple[Drawn, ...]


StreamEvent: TypeAlias = Prefilled | Drawn | End | Scored | Weighed | PunaError
"""What a stream tells its caller. The last of an answer is an End, of a scoring its Scored, of a weighing its Weighed;
an error ends any."""


PATIENCE = 0.001
"""Seconds after which a Constraint is not asked for what comes after further guesses."""

Masks: TypeAlias = "list[Mask | PunaError]"
"""What a Constraint allows after a stream's last token, and after each guess; or that it has become too much there."""


class Stream:
    """What all kinds share. `room`: tokens that its cache may come to hold. `ended`: nothing is left to do. `holding`:
    the state that it has beside its blocks, of a model with states.
    """

    scored = False

    def __init__(self, number: int, tokens: Sequence[int], room: int) -> None:
        self.number = number
        self.tokens = list(tokens)
        self.prompt = len(tokens)
        self.room = room
        self.done = self._cached = 0
        self.ended = False
        self.holding: Holding | None = None
        self._keys: list[BlockKey] | None = None
        self._end_key: BlockKey | None = None
        self._table: Table | None = None

    @property
    def table(self) -> Table:
        assert self._table is not None, "not admitted"
        return self._table

    def admit(self, cache: Cache, stored: OnDisk = nowhere) -> WaitReason | None:
        """Take a place in the cache; or why not now. What is stored is to be `fetched` before anything is computed."""
        if self._keys is None and not self.scored:
            self._keys = block_keys(self.tokens, cache.block_size)
            self._end_key = end_key(self.tokens, cache.block_size, self._keys)
        # A token at least is left to be computed: the one whose row is wanted. Of a scored text every row is.
        findable = 0 if self.scored else self.prompt - 1
        table = cache.admit(self.tokens, self._keys or (), self.room, findable, self._end_key, stored)
        if isinstance(table, WaitReason):
            return table
        self._table = table
        self.done = self._cached = table.found
        return None

    def fetched(self, blocks: int, cache: Cache) -> None:
        """So many of the blocks that are stored have come."""
        self.done = self._cached = self.done + blocks * cache.block_size
        cache.publish(self.table, self.tokens, self.done)

    def release(self, cache: Cache) -> None:
        """Give the place back, if there is one."""
        if self._table is not None:
            cache.remember(self._table, self.tokens, self.done)
            cache.release(self._table)
            self._table = None

    @property
    def decoding(self) -> bool:
        return self.done >= self.prompt

    def state(self) -> Advance:
        return Advance(len(self.tokens), self.done, self.decoding, self.scored)

    def advance(self, count: int, cache: Cache) -> None:
        """The next `count` tokens are in the cache."""
        before, self.done = self.done, self.done + count
        cache.publish(self.table, self.tokens, self.done)
        if before < self.prompt <= self.done:
            cache.remember(self.table, self.tokens, self.done)

    def orders(self, row: int, span: Span, masks: Masks | None) -> Sequence[Draw | Rate]:
        """What to find out from a span's rows, the first of which is `row`. `masks`: what a Constraint allows."""
        raise NotImplementedError

    def take(self, found: Sequence[Drawn | PunaError], span: Span, cache: Cache) -> list[StreamEvent]:
        """The span is computed, and `found` answers its orders: what there is to tell."""
        raise NotImplementedError


class Generation(Stream):
    """Tokens after a prompt. `limit`: at most so many; `eos`: ids that end it.

    `guesser` finds what may come next (see `puna.engine.cpu.guess`); without one every step brings one token.
    """

    def __init__(
        self,
        number: int,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        limit: int,
        eos: frozenset[int],
        matcher: Matcher | None = None,
        prediction: Sequence[int] = (),
        guesses: bool = True,
    ) -> None:
        super().__init__(number, prompt, len(prompt) + limit - 1)  # the last token is never computed further
        self.matcher = matcher
        self._sampling = sampling
        self._sampler = Sampler(sampling, banned=sorted(eos) if sampling.ignore_eos else ())
        self._history = History(prompt, self.room + 1)
        self._limit = limit
        self._eos = eos
        self._started = self._first = 0
        # Mirostat learns from every draw: a draw that does not count would change those that do.
        self._guesser = Guesser(self.tokens, prediction) if guesses and not sampling.mirostat else None

    def admit(self, cache: Cache, stored: OnDisk = nowhere) -> WaitReason | None:
        self._started = time.perf_counter_ns()
        return super().admit(cache, stored)

    def guesses(self, most: int, price: float) -> tuple[int, ...]:
        """What may come after its last token, `most` tokens at most. `price`: what one costs, in tokens."""
        if self._guesser is None:
            return ()
        left = self._limit - (len(self.tokens) - self.prompt)
        found = self._guesser.guesses(min(most, left - 1), price)
        for place, token in enumerate(found):
            if token in self._eos:
                found = found[:place]
                break
        if self.matcher is not None and found:
            found = found[: self.matcher.follows(found)]
        return tuple(found)

    def orders(self, row: int, span: Span, masks: Masks | None) -> Sequence[Draw]:
        """The tokens after its last one and after each guess, each as if the guesses before it were right."""
        known = len(self.tokens)
        self._history.truncate(known)
        self._history.extend(span.guesses)
        orders = []
        for place, mask in enumerate([None] * (len(span.guesses) + 1) if masks is None else masks):
            if isinstance(mask, PunaError):
                break
            orders.append(Draw(self._sampler, row + place, self._history, mask, known + place))
        return orders

    def take(self, found: Sequence[Drawn | PunaError], span: Span, cache: Cache) -> list[StreamEvent]:
        """The next tokens: the one after the last, and one more for each guess that was right.

        All that is told is what would be told without guesses.
        """
        events: list[StreamEvent] = []
        if not self._first:
            self._first = time.perf_counter_ns()
            events.append(Prefilled(self.prompt, self._cached, self._first - self._started))
        self._history.truncate(len(self.tokens))
        right = 0
        for place, one in enumerate(found):
            events += self._told(one)
            guessed = place < len(span.guesses) and isinstance(one, Drawn) and one.token == span.guesses[place]
            right += guessed
            if self.ended or not guessed:
                break
        if self._guesser is not None and span.guesses:
            self._guesser.judged(len(span.guesses), right)
        computed = span.count + right
        if not self.ended:  # the last token is computed once more if what comes after it was not asked for
            computed = min(computed, len(self.tokens) - 1 - span.start)
        self.advance(computed, cache)
        return events

    def _told(self, found: Drawn | PunaError) -> list[StreamEvent]:
        if isinstance(found, PunaError):
            self.ended = True
            return [found]
        if found.token in self._eos:
            return [self._end(complete=True)]
        self.tokens.append(found.token)
        self._history.append(found.token)
        if self._guesser is not None:
            self._guesser.feed()
        try:
            complete = self.matcher is not None and self.matcher.accept(found.token)
        except PunaError as error:
            return self._told(error)
        if complete or len(self.tokens) - self.prompt >= self._limit:
            return [found, self._end(complete)]
        return [found]

    def _end(self, complete: bool) -> End:
        self.ended = True
        return End(
            reason="stop" if complete else "length",
            prompt_tokens=self.prompt,
            cached_tokens=self._cached,
            completion_tokens=len(self.tokens) - self.prompt,
            prompt_ns=self._first - self._started,
            decode_ns=time.perf_counter_ns() - self._first,
            settings=settings_used(self._sampling, self._limit),
        )


class Scoring(Stream):
    """The log-probabilities of a given text. Every row is wanted, so it is computed whole, whatever is ready of it."""

    scored = True

    def __init__(self, number: int, tokens: Sequence[int], top: int) -> None:
        super().__init__(number, tokens, len(tokens))
        self._top = top
        self._found: list[Drawn] = []

    @property
    def decoding(self) -> bool:
        return False

    def orders(self, row: int, span: Span, masks: Masks | None) -> Sequence[Rate]:
        """Each of the span's tokens but the text's last one rates the one that follows it."""
        following = self.tokens[span.start + 1 : span.start + span.count + 1]
        return [Rate(row + place, token, self._top) for place, token in enumerate(following)]

    def take(self, found: Sequence[Drawn | PunaError], span: Span, cache: Cache) -> list[StreamEvent]:
        for one in found:
            if isinstance(one, PunaError):
                self.ended = True
                return [one]
            self._found.append(one)
        self.advance(span.count, cache)
        if self.done < self.prompt:
            return []
        self.ended = True
        return [Scored(tuple(self._found))]


class Weighing(Stream):
    """The log-probabilities of some tokens in the place after a given text."""

    def __init__(self, number: int, tokens: Sequence[int], following: Sequence[int]) -> None:
        super().__init__(number, tokens, len(tokens))
        self._following = following

    @property
    def decoding(self) -> bool:
        return False

    def orders(self, row: int, span: Span, masks: Masks | None) -> Sequence[Rate]:
        """The row of the last token says all of them."""
        return [Rate(row, token, 0) for token in self._following]

    def take(self, found: Sequence[Drawn | PunaError], span: Span, cache: Cache) -> list[StreamEvent]:
        self.ended = True
        weights: list[float] = []
        for one in found:
            if isinstance(one, PunaError):
                return [one]
            weights.append(one.logprob or 0.0)
        self.advance(span.count, cache)
        return [Weighed(tuple(weights), self._cached)]


def masks_along(matcher: Matcher, guesses: Sequence[int]) -> Masks:
    """What a Constraint allows next, and after each guess, which it must allow. It stays where it is.

    After some guesses only, where that takes too long.
    """
    masks: Masks = []
    until = time.perf_counter() + PATIENCE
    walker = matcher.fork() if guesses else matcher
    for guess in (None, *guesses):
        try:
            if guess is not None and (time.perf_counter() > until or walker.accept(guess)):
                break  # an answer that is complete has nothing after it
            masks.append(walker.mask())
        except PunaError as error:
            masks.append(error)
            break
    return masks


def settings_used(sampling: Sampling, limit: int) -> JsonObject:
    """What a generation ran with, by llama.cpp's names. With Mirostat on, temperature and bias alone act besides it."""
    return sampling.settings() | {"max_tokens": limit}
