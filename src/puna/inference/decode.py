"""Runs choices on a Runner and gives their Events in one stream. Closing the stream ends the runner's work."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace

from puna.engine.runner import Constraint, End, Prefilled, Prompt, Runner, Sampling, Step, Token
from puna.errors import ContextLengthExceeded, EngineError
from puna.inference.choice import Choice, ChoiceEvent
from puna.inference.literal import spelled
from puna.inference.sampling import continued_seed
from puna.inference.thought import ThoughtLimit
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
    """One choice to be generated. `sampling` None: no token of it. `opening`: events that come before its own.

    `computed`: with no token, the prompt is computed all the same, so that it is cached for others that begin with it.

    `thought`: when its thought is closed before the model does so; its `sampling` then lets `prefilled` be told.
    """

    choice: Choice
    prompt: Prompt
    sampling: Sampling | None
    constraint: Constraint | None = None
    opening: tuple[ChoiceEvent, ...] = ()
    computed: bool = False
    thought: ThoughtLimit | None = None
    tally: ChoiceCost = field(default_factory=lambda: ChoiceCost(0))


async def decode(runner: Runner, job: Job) -> AsyncGenerator[Sequence[ChoiceEvent], None]:
    """The Events of one choice: one batch (which may be empty) a token; the last ends with Finished."""
    choice, tally = job.choice, job.tally
    tally.prompt = len(job.prompt.tokens)
    if job.sampling is None:
        if job.computed:
            await _compute(runner, job.prompt, tally)
        else:
            tally.prompt = await prompt_size(runner, job.prompt)
        yield [*job.opening, *choice.finish("length")]
        return
    reason: FinishReason = "stop"
    began = time.perf_counter_ns()
    first = 0
    opening = job.opening
    run: _Run | None = _Run(job.prompt, job.sampling, job.constraint)
    limit = job.thought
    runs = closed = 0
    while run is not None:
        if limit is not None and limit.reached(choice):
            closing = await runner.tokenize(limit.closing, special=True, bos=False)
            left = job.sampling.max_tokens - len(choice.tokens) - len(closing)
            if left <= 0:  # what closes the thought counts too, and nothing could come after it
                reason = "length"
                break
            closed += 1
            yield choice.close_thought(closing, limit.closing)
            run = await _after_thought(runner, job, limit, closed, left)
        given = len(choice.tokens)
        cut = False
        async with _closing(runner.generate(run.prompt, run.sampling, run.constraint)) as steps:
            async for step in steps:
                if opening:
                    yield opening
                    opening = ()
                if isinstance(step, Token):
                    first = first or time.perf_counter_ns()
                    events = choice.feed(step)
                    # After a stop string the rest comes with `finish`; closing the iterator ends the work.
                    if limit is not None:
                        cut = not choice.stopped and limit.reached(choice)
                        if choice.thought_over:
                            limit = None
                    yield events
                    if choice.stopped or cut:
                        break
                else:
                    # What the engine counts of a later run is no cost of the prompt.
                    if not runs:
                        _settle(tally, step, given)
                    if isinstance(step, End):
                        reason = step.reason
                    else:
                        yield ()
        runs += 1
        if not cut:
            run = None
    if not runs:
        tally.prompt = await prompt_size(runner, job.prompt)
    first = first or time.perf_counter_ns()
    tally.prompt_ns = tally.prompt_ns or first - began
    if closed or not tally.decode_ns:
        tally.decode_ns = time.perf_counter_ns() - first
    yield choice.finish(reason)


@dataclass(frozen=True, slots=True)
class _Run:
    """One generation of an engine: a choice whose thought is closed takes several."""

    prompt: Prompt
    sampling: Sampling
    constraint: Constraint | None


async def _after_thought(runner: Runner, job: Job, limit: ThoughtLimit, closed: int, left: int) -> _Run:
    """The answer of `left` tokens at most, after a thought that was closed for the `closed`-th time."""
    assert job.sampling is not None
    prompt, tokens = job.prompt, job.choice.tokens
    texts = prompt.texts
    if texts:
        texts = (*texts[:-1], texts[-1] + await spelled(runner, tokens))
    return _Run(
        replace(prompt, tokens=(*prompt.tokens, *tokens), texts=texts),
        replace(job.sampling, max_tokens=left, seed=continued_seed(job.sampling.seed, closed)),
        limit.constraint,
    )


def _settle(tally: ChoiceCost, step: Prefilled | End, given: int) -> None:
    """`given`: tokens of the choice that the engine got for its prompt."""
    tally.prompt = step.prompt_tokens - given
    tally.cached = min(step.cached_tokens, tally.prompt)
    tally.prompt_ns = step.prompt_ns
    if isinstance(step, End):
        tally.decode_ns = step.decode_ns


async def _compute(runner: Runner, prompt: Prompt, tally: ChoiceCost) -> None:
    """Let the engine read the prompt; the token that it has to make for that is nobody's."""
    async with _closing(runner.generate(prompt, Sampling(max_tokens=1, seed=0))) as steps:
        async for step in steps:
            if not isinstance(step, Token):
                _settle(tally, step, 0)


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


_AT_A_TURN = 256
"""Streams that begin in one turn of the event loop."""


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
    try:
        for place, stream in enumerate(streams):
            waiting: deque[Sequence[ChoiceEvent]] = deque()
            lanes.append(_Lane(asyncio.create_task(_pump(stream, waiting, news, turns)), waiting))
            if place % _AT_A_TURN == _AT_A_TURN - 1:
                await asyncio.sleep(0)
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
