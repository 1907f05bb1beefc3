"""The first and the last event of an answer, and the whole of it in order."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import lru_cache

from puna.engine.prediction import appeared
from puna.engine.runner import RunnerInfo
from puna.inference.choice import ChoiceEvent
from puna.inference.decode import Job
from puna.inference.sampling import cut_context
from puna.inference.tally import note_answer
from puna.model.model import Model
from puna.types import Done, Event, Options, Started, Timings, Usage


async def whole(
    first: Started, batches: AsyncGenerator[Sequence[ChoiceEvent], None], last: Callable[[], Done]
) -> AsyncGenerator[Event, None]:
    """`first` waits for the first batch: an engine that refuses does so without an answer begun."""
    told = False
    async with aclosing(batches):
        async for batch in batches:
            if not told:
                told = True
                yield first
            for event in batch:
                yield event
    done = last()
    note_answer(done.usage, done.timings)
    yield done


def started(
    name: str,
    model: Model,
    info: RunnerInfo,
    options: Options,
    *,
    prompt: tuple[int, ...] = (),
    dropped: int = 0,
    ignored: Sequence[str] = (),
    ignored_parameters: Sequence[str] = (),
) -> Started:
    """`name` as the request wrote it, `options` its own. `ignored_parameters`: those that this engine cannot do."""
    cut, cut_parameters = cut_context(options, model, info.num_ctx)
    return Started(
        model=name,
        engine=info.engine,
        fingerprint=fingerprint(model, info),
        seed_exact=info.seed_exact,
        num_ctx=info.num_ctx,
        prompt_tokens=prompt,
        dropped_messages=dropped,
        ignored=tuple(dict.fromkeys((*cut, *ignored))),
        ignored_parameters=tuple(dict.fromkeys((*model.ignored_parameters, *cut_parameters, *ignored_parameters))),
    )


def fingerprint(model: Model, info: RunnerInfo) -> str:
    """Changes with whatever may change a byte of an answer: the model, the engine, its bits, and how much it holds."""
    return _fingerprint((model.digest, info.engine, info.bits, info.num_ctx))


@lru_cache(maxsize=256)
def _fingerprint(facts: tuple[object, ...]) -> str:
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:10]


def done(prompts: Sequence[Sequence[Job]], began: int, load_ns: int) -> Done:
    """What all choices cost. `prompts`: the jobs of each prompt, which counts once, as the first of them found it."""
    jobs = [job for group in prompts for job in group]
    expected = sum(len(job.prompt.prediction) for job in jobs)
    predicted = sum(appeared(job.prompt.prediction, job.choice.tokens) for job in jobs if job.prompt.prediction)
    usage = Usage(
        prompt=sum(group[0].tally.prompt for group in prompts),
        completion=sum(len(job.choice.tokens) for job in jobs),
        cached=sum(group[0].tally.cached for group in prompts),
        reasoning=sum(job.choice.reasoning for job in jobs),
        predicted=predicted,
        unpredicted=expected - predicted,
    )
    timings = Timings(
        total=time.perf_counter_ns() - began,
        load=load_ns,
        prompt=sum(group[0].tally.prompt_ns for group in prompts),
        decode=max(job.tally.decode_ns for job in jobs),
    )
    return Done(usage, timings)
