"""The engine's one thread: admit, plan, compute, draw, tell. It alone touches the cache, the streams and the model.

Other threads put work into its inbox and get what happened through `tell`, once a step, for all streams together. A
request over `slots`, or for which the cache has no room yet, waits here in order of arrival.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu.backlog import Backlog, Touch
from puna.engine.cpu.batch import Batch, ForwardPass, batch
from puna.engine.cpu.cache import Cache, WaitReason, blocks_for, nowhere
from puna.engine.cpu.choice import Draw, Outcome, Rate
from puna.engine.cpu.disk import Disk
from puna.engine.cpu.pace import Pace
from puna.engine.cpu.plan import Advance, Span, plan
from puna.engine.cpu.sampler import check
from puna.engine.cpu.states import States
from puna.engine.cpu.stream import Generation, Masks, Matcher, Scoring, Stream, StreamEvent, Weighing, masks_along
from puna.engine.runner import Sampling
from puna.errors import ContextLengthExceeded, InvalidRequest, PunaError


@dataclass(frozen=True, slots=True)
class Generate:
    """Answer a prompt. `number` is the caller's, and names the stream in all that is told.

    `prediction`: what the answer is expected to hold (see `puna.engine.runner.Prompt`).
    """

    number: int
    tokens: tuple[int, ...]
    sampling: Sampling
    matcher: Matcher | None = None
    prediction: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """Find the log-probability of each token of a text but the first, and `top` alternatives."""

    number: int
    tokens: tuple[int, ...]
    top: int


@dataclass(frozen=True, slots=True)
class Weigh:
    """Find the log-probability of each of `following` after a text."""

    number: int
    tokens: tuple[int, ...]
    following: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody wants the rest of that stream. Nothing more is told of it once this is read."""

    number: int


@dataclass(frozen=True, slots=True)
class Count:
    """Take a Census, once everything put in before is done."""

    number: int


@dataclass(frozen=True, slots=True)
class Census:
    """Streams that run and that wait, and the numbers of both; blocks of the cache that could be promised now, of all
    there are."""

    running: int
    waiting: int
    open: int
    capacity: int
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """Write to the disk what is not there yet, and tell that with Settled. No more work is to come."""

    number: int


@dataclass(frozen=True, slots=True)
class Settled:
    """All that could be written is written."""


@dataclass(frozen=True, slots=True)
class BlocksRead:
    """The disk has given so many of the blocks that a stream found there."""

    stream: Stream
    blocks: int


@dataclass(frozen=True, slots=True)
class DiskDone:
    """The disk has done what it was told, or cannot. It took so many seconds of a processor."""

    well: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Shutdown:
    """End the thread."""


Work: TypeAlias = Generate | Score | Weigh
Order: TypeAlias = Work | Cancel | Count | Settle | BlocksRead | DiskDone | Shutdown
Told: TypeAlias = "list[tuple[int, StreamEvent | Census | Settled]]"

REST = 1.0
"""Seconds without work after which blocks are written one after the other: who has read an answer may ask at once."""

SHARE = 0.1
"""How much of a processor's time writing takes before such a rest, so that a kill costs a busy server little."""


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """What the loop keeps to: tokens of prompt and answer together, streams at once, and what ids there are.

    `speculation`: whether next tokens are guessed, which changes none of them. `stateful`: the model has states.
    """

    num_ctx: int
    slots: int
    vocabulary: int
    eos: frozenset[int]
    speculation: bool = True
    stateful: bool = False


class Loop:
    """The one thread that computes: it takes orders, makes steps, and tells what came of them.

    `tell` is called in the loop's thread; it must be quick and must not raise.
    """

    def __init__(
        self,
        model: ForwardPass,
        cache: Cache,
        limits: LoopLimits,
        tell: Callable[[Told], None],
        *,
        pace: Pace | None = None,
        disk: Disk | None = None,
    ) -> None:
        if blocks_for(limits.num_ctx, cache.block_size) > cache.capacity:
            holds = cache.capacity * cache.block_size
            raise ValueError(f"a cache of {holds} tokens for a context of {limits.num_ctx}")
        self._model = model
        self._cache = cache
        self._limits = limits
        self._tell = tell
        self._states = States(limits.slots) if limits.stateful else None
        self._pace = pace or Pace()
        self._inbox: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._waiting: deque[Stream] = deque()
        self._running: list[Stream] = []
        self._fetching: list[Stream] = []
        self._disk = disk
        self._backlog = Backlog()
        self._writing = False
        self._copying = 0.0
        self._due = 0.0
        self._settling: list[int] = []
        self._worked = 0.0
        self._told: Told = []
        self._masks = ThreadPoolExecutor(1, "masks")

    # ------------------------------------------------------------------------------------------- for other threads

    def put(self, order: Order) -> None:
        """Have something done, before the next step. Any thread."""
        self._inbox.put(order)

    # ------------------------------------------------------------------------------------------------- its own thread

    def run(self) -> None:
        """Work until told to stop; with nothing to do, wait for an order. An error of the model ends it."""
        try:
            # Who waits beside those that the disk is read for has been looked at, and will be again when that is done.
            while self.read(wait=not self._running and (bool(self._fetching) or not self._waiting)):
                self.step()
                self.write_behind()
        finally:
            self._masks.shutdown()

    def read(self, *, wait: bool = False) -> bool:
        """Take in all orders that are there, or wait for one, or until blocks may be written. False: stop."""
        try:
            while True:
                order = self._inbox.get(block=wait, timeout=self._until_write() if wait else None)
                wait = False
                if isinstance(order, Shutdown):
                    return False
                self._obey(order)
        except queue.Empty:
            self._flush()
            return True

    def step(self) -> bool:
        """Compute one step and tell what came of it. False: there was nothing to compute."""
        self._admit()
        states = [stream.state() for stream in self._running]
        planned = plan(states, self._budget(states))
        if not planned:
            return False
        spans = self._guess(planned)
        for span in spans:
            self._cache.extend(self._running[span.index].table, span.end)
        work = batch(spans, self._running, self._cache.block_size)
        masks = self._start_masks(spans, work)
        before = time.perf_counter()
        rows = work.run(self._model)
        self._take(spans, work, self._choose(spans, work, rows, masks))
        self._pace.took(len(work.ids), time.perf_counter() - before)
        self._remove(lambda stream: stream.ended)
        self._flush()
        return True

    def write_behind(self) -> None:
        """Have the next block written, if it is time: one at once, and only its copy is made in this thread."""
        disk = self._disk
        if disk is None or self._writing or not (self._settling or self._until_write() == 0):
            return
        todo = self._backlog.next(disk.has, self._cache.find)
        if todo is None:
            self._told += [(number, Settled()) for number in self._settling]
            self._settling.clear()
            self._flush()
            return
        self._writing = True
        before = time.perf_counter()
        if isinstance(todo, Touch):
            disk.touch(todo.keys, self._written)
        else:
            disk.write(todo.key, bytes(self._model.block(todo.block)), self._written)
        self._copying = time.perf_counter() - before

    # ----------------------------------------------------------------------------------------------------- its parts

    def _until_write(self) -> float | None:
        """Seconds until the next block may be written; None: there is none, or one is being written."""
        if self._disk is None or self._writing or not self._backlog:
            return None
        busy = self._running or self._waiting or self._fetching
        due = self._due if busy else min(self._due, self._worked + REST)
        return max(due - time.monotonic(), 0.0)

    def _written(self, well: bool, seconds: float) -> None:
        """Heard in another thread."""
        self.put(DiskDone(well, seconds))

    def _obey(self, order: Work | Cancel | Count | Settle | BlocksRead | DiskDone) -> None:
        if isinstance(order, Cancel):
            self._waiting = deque(stream for stream in self._waiting if stream.number != order.number)
            self._remove(lambda stream: stream.number == order.number)
            for stream in self._fetching:
                stream.ended |= stream.number == order.number
        elif isinstance(order, BlocksRead):
            self._start_read(order.stream, order.blocks)
        elif isinstance(order, DiskDone):
            self._writing = False
            self._due = time.monotonic() + (self._copying + order.seconds) / SHARE
            if not order.well:
                self._backlog.give_up()
        elif isinstance(order, Settle):
            for stream in self._running:
                self._note(stream, over=True)
            if self._disk is None:
                self._told.append((order.number, Settled()))
            else:
                self._settling.append(order.number)
        elif isinstance(order, Count):
            cache = self._cache
            running = [*self._running, *self._fetching]
            numbers = tuple(stream.number for stream in (*running, *self._waiting))
            census = Census(len(running), len(self._waiting), cache.open, cache.capacity, numbers)
            self._told.append((order.number, census))
        else:
            try:
                self._waiting.append(self._stream(order))
            except PunaError as error:
                self._told.append((order.number, error))

    def _stream(self, order: Work) -> Stream:
        limits, length = self._limits, len(order.tokens)
        if not order.tokens:
            raise InvalidRequest("the prompt holds no token", param="prompt")
        if not all(0 <= token < limits.vocabulary for token in order.tokens):
            raise InvalidRequest(f"the prompt holds a token outside 0 … {limits.vocabulary - 1}", param="prompt")
        if isinstance(order, Generate) and not all(0 <= token < limits.vocabulary for token in order.prediction):
            raise InvalidRequest(
                f"the prediction holds a token outside 0 … {limits.vocabulary - 1}", param="prediction"
            )
        if isinstance(order, Weigh) and not all(0 <= token < limits.vocabulary for token in order.following):
            raise InvalidRequest(f"a token outside 0 … {limits.vocabulary - 1} is to be weighed", param="prompt")
        if not isinstance(order, Generate):
            if length > limits.num_ctx:
                raise ContextLengthExceeded(length, limits.num_ctx, param="prompt", what="prompt")
            if isinstance(order, Weigh):
                return Weighing(order.number, order.tokens, order.following)
            return Scoring(order.number, order.tokens, order.top)
        if length >= limits.num_ctx:
            raise ContextLengthExceeded(length, limits.num_ctx, param="prompt", what="prompt")
        check(order.sampling, limits.vocabulary)
        most = min(order.sampling.max_tokens, limits.num_ctx - length)
        return Generation(
            order.number,
            order.tokens,
            order.sampling,
            limit=most,
            eos=limits.eos,
            matcher=order.matcher,
            prediction=order.prediction,
            guesses=limits.speculation,
        )

    def _admit(self) -> None:
        """Start who can, oldest first. Who waits for room lets nobody pass; who waits for a shared prompt does."""
        left: deque[Stream] = deque()
        stored = nowhere if self._disk is None else self._disk.has
        while self._waiting and len(self._running) + len(self._fetching) < self._limits.slots:
            stream = self._waiting.popleft()
            reason = stream.admit(self._cache, stored)
            if reason is None:
                if stream.table.stored:
                    self._fetch(stream)
                else:
                    self._start(stream)
                continue
            left.append(stream)
            if reason is WaitReason.ROOM:
                break
        self._waiting.extendleft(reversed(left))

    def _start(self, stream: Stream) -> None:
        if stream.table.copied is not None:
            self._model.copy(*stream.table.copied)
        if self._states is not None:
            stream.holding = self._states.open(stream.tokens, stream.done)
        self._running.append(stream)

    def _fetch(self, stream: Stream) -> None:
        """Have its blocks read into the places where they would be computed, while others go on."""
        assert self._disk is not None
        table = stream.table
        begin, end = table.published, table.published + table.stored
        self._cache.extend(table, end * self._cache.block_size)
        rooms = [self._model.block(block) for block in table.blocks[begin:end]]
        self._fetching.append(stream)
        self._disk.read(table.keys[begin:end], rooms, lambda blocks: self.put(BlocksRead(stream, blocks)))

    def _start_read(self, stream: Stream, blocks: int) -> None:
        """What has not come is computed, like anything else."""
        self._fetching.remove(stream)
        stream.fetched(blocks, self._cache)
        if stream.ended:  # nobody waits for it any more, and now nobody writes into its blocks either
            stream.release(self._cache)
        else:
            self._start(stream)

    def _note(self, stream: Stream, *, over: bool) -> None:
        """Its whole blocks are to be on the disk. Of a text that was scored they are not: that is not asked again."""
        if self._disk is not None and not stream.scored:
            keys = tuple(stream.table.keys[: stream.table.published])
            self._backlog.note(stream.number, keys, over=over)

    def _budget(self, states: Sequence[Advance]) -> int:
        prompts = [state.left for state in states if not state.decoding]
        return self._pace.budget(len(states) - len(prompts), min(prompts, default=0))

    def _guess(self, spans: Sequence[Span]) -> list[Span]:
        """The spans, with what may come next in each answer where that is worth its rows."""
        rows = sum(span.count for span in spans)
        answers = sum(self._running[span.index].decoding for span in spans)
        price, room = self._pace.price(rows, answers), self._pace.room(rows, answers)
        found = list(spans)
        for place, span in enumerate(spans):
            stream = self._running[span.index]
            if stream.decoding and isinstance(stream, Generation) and (guesses := stream.guesses(room, price)):
                found[place] = replace(span, guesses=guesses)
                room -= len(guesses)
        return found

    def _start_masks(self, spans: Sequence[Span], work: Batch) -> dict[int, Future[Masks]]:
        """What each Constraint allows next depends on no logits: find it out while the model computes them."""
        masks: dict[int, Future[Masks]] = {}
        for span, (_, count) in zip(spans, work.wanted, strict=True):
            stream = self._running[span.index]
            if count and isinstance(stream, Generation) and stream.matcher is not None:
                masks[span.index] = self._masks.submit(masks_along, stream.matcher, span.guesses)
        return masks

    def _choose(
        self, spans: Sequence[Span], work: Batch, rows: NDArray[np.float32], masks: dict[int, Future[Masks]]
    ) -> list[list[Outcome | PunaError]]:
        """All tokens of the step in one call; for each span what was found. A Constraint's error is its last."""
        ready = {index: mask.result() for index, mask in masks.items()}
        orders: list[Draw | Rate] = []
        ends: list[int] = []
        for span, (place, count) in zip(spans, work.wanted, strict=True):
            if count:
                orders += self._running[span.index].orders(place, span, ready.get(span.index))
            ends.append(len(orders))
        outcomes = self._model.choose(rows, orders) if orders else []
        found: list[list[Outcome | PunaError]] = []
        for span, begin, end in zip(spans, [0, *ends], ends, strict=False):
            errors = [mask for mask in ready.get(span.index, ()) if isinstance(mask, PunaError)]
            found.append([*outcomes[begin:end], *errors])
        return found

    def _take(self, spans: Sequence[Span], work: Batch, found: Sequence[Sequence[Outcome | PunaError]]) -> None:
        for span, (_, count), own in zip(spans, work.wanted, found, strict=True):
            stream = self._running[span.index]
            before = stream.table.published
            if count:
                self._told += [(stream.number, event) for event in stream.take(own, span, self._cache)]
            else:
                stream.advance(span.count, self._cache)
            if stream.table.published > before:
                self._note(stream, over=False)

    def _remove(self, over: Callable[[Stream], bool]) -> None:
        for stream in [stream for stream in self._running if over(stream)]:
            self._running.remove(stream)
            self._worked = time.monotonic()
            self._note(stream, over=True)
            stream.release(self._cache)
            if self._states is not None and stream.holding is not None:
                self._states.close(stream.holding, stream.tokens)

    def _flush(self) -> None:
        if self._told:
            told, self._told = self._told, []
            self._tell(told)
