"""Runs choices on a Runner and gives their Events in one stream. Closing the stream ends the runner's work."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from puna.engine.runner import Constraint, End, Prefilled, Prompt, Runner, Sampling, Step, Token
from puna.errors import ContextLengthExceeded, EngineError
from puna.inference.choice import Choice, ChoiceEvent
from puna.types import FinishReason


@dataclass(slots=True)
class ChoiceCost:
    """What one choice cost. Durations in nanoseconds. `prompt`, `cached`: the engine's counts."""

    prompt: int
    cached: int = 0
    prompt_ns: int = 0
    decode_ns: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One choice to be generated. `sampling` None: no token of it. `opening`: events that come before its own."""

    choice: Choice
    prompt: Prompt
    sampling: Sampling | None
    constraint: Constraint | None = None
    opening: tuple[ChoiceEvent, ...] = ()
    tally: ChoiceCost = field(default_factory=lambda: ChoiceCost(0))


async def decode(runner: Runner, job: Job) -> AsyncGenerator[Sequence[ChoiceEvent], None]:
    """The Events of one choice: one batch (which may be empty) a token; the last ends with Finished."""
    choice, tally = job.choice, job.tally
    tally.prompt = len(job.prompt.tokens)
    if job.sampling is None:
        tally.prompt = await prompt_size(runner, job.prompt)
        yield [*job.opening, *choice.finish("length")]
        return
    reason: FinishReason = "stop"
    began = time.perf_counter_ns()
    first = 0
    opening = job.opening
    async with _closing(runner.generate(job.prompt, job.sampling, job.constraint)) as steps:
        async for step in steps:
            if opening:
                yield opening
                opening = ()
            if isinstance(step, Token):
                first = first or time.perf_counter_ns()
                events = choice.feed(step)
                if choice.stopped:
                    # The rest comes with `finish`; closing the iterator ends the work.
                    yield events
                    break
                yield events
            else:
                _settle(tally, step)
                if isinstance(step, End):
                    reason = step.reason
                else:
                    yield ()
    first = first or time.perf_counter_ns()
    tally.prompt_ns = tally.prompt_ns or first - began
    tally.decode_ns = tally.decode_ns or time.perf_counter_ns() - first
    yield choice.finish(reason)


def _settle(tally: ChoiceCost, step: Prefilled | End) -> None:
    tally.prompt = step.prompt_tokens
    tally.cached = step.cached_tokens
    tally.prompt_ns = step.prompt_ns
    if isinstance(step, End):
        tally.decode_ns = step.decode_ns


async def prompt_size(runner: Runner, prompt: Prompt) -> int:
    """How many tokens it is. With media the engine tells, once it has computed them, which it need not do again."""
    if not prompt.media:
        return len(prompt.tokens)
    one = runner.generate(prompt, Sampling(max_tokens=1, seed=0))
    try:
        async with _closing(one) as steps:
            async for step in steps:
                if not isinstance(step, Token):
                    return step.prompt_tokens
    except ContextLengthExceeded as error:
        return error.tokens
    raise EngineError("the engine did not tell how many tokens the prompt is")


@asynccontextmanager
async def _closing(steps: AsyncIterator[Step]) -> AsyncGenerator[AsyncIterator[Step], None]:
    try:
        yield steps
    finally:
        if isinstance(steps, AsyncGenerator):
            await steps.aclose()


def decode_all(runner: Runner, jobs: Sequence[Job]) -> AsyncGenerator[Sequence[ChoiceEvent], None]:
    """The Events of all jobs, interleaved; a choice appears only after those of lower index have.

    They begin in order, not many more at once than the runner has slots.
    """
    streams = [decode(runner, job) for job in jobs]
    return streams[0] if len(streams) == 1 else _merge(streams, 2 * runner.info.slots)


@dataclass(slots=True)
class _Lane:
    """One stream's batches that are not yet given. `over` when no more come."""

    task: asyncio.Task[None]
    waiting: deque[Sequence[ChoiceEvent]]
    given: bool = False

    @property
    def over(self) -> bool:
        return not self.waiting and self.task.done()


async def _merge(
    streams: Sequence[AsyncGenerator[Sequence[ChoiceEvent], None]], at_once: int
) -> AsyncGenerator[Sequence[ChoiceEvent], None]:
    """Take turns. The first error of any stream ends all of them.

    No stream waits for the reader: one that may not appear yet could hold the slot that an earlier one needs.
    """
    news = asyncio.Event()
    turns = asyncio.Semaphore(at_once)
    lanes: list[_Lane] = []
    for stream in streams:
        waiting: deque[Sequence[ChoiceEvent]] = deque()
        lanes.append(_Lane(asyncio.create_task(_pump(stream, waiting, news, turns)), waiting))
    try:
        while lanes:
            news.clear()
            batches = _turn(lanes)
            for batch in batches:
                yield batch
            for lane in lanes:
                if lane.over:
                    lane.task.result()
            lanes = [lane for lane in lanes if not lane.over]
            if lanes and not batches:
                await news.wait()
    finally:
        for lane in lanes:
            lane.task.cancel()
        await asyncio.gather(*(lane.task for lane in lanes), return_exceptions=True)


def _turn(lanes: Sequence[_Lane]) -> list[Sequence[ChoiceEvent]]:
    """One batch of each lane that has some, up to the first lane that has never appeared and has none."""
    batches = []
    for lane in lanes:
        if lane.waiting:
            batches.append(lane.waiting.popleft())
            lane.given = lane.given or bool(batches[-1])
        if not lane.given:
            break
    return batches


async def _pump(
    stream: AsyncGenerator[Sequence[ChoiceEvent], None],
    waiting: deque[Sequence[ChoiceEvent]],
    news: asyncio.Event,
    turns: asyncio.Semaphore,
) -> None:
    try:
        async with turns, aclosing(stream):
            async for events in stream:
                if events:
                    waiting.append(events)
                    news.set()
    finally:
        news.set()
