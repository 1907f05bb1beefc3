"""Inference: the one door to what a model does. Chat, complete, embed; load, unload; count.

Every stream that is returned may be closed at any time: its `finally` ends the runner's work, then the Lease, once.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import fields
from functools import lru_cache
from typing import Protocol

from puna.chat.facts import ChatTemplate
from puna.chat.fit import room
from puna.chat.text import TextStream
from puna.engine.runner import Feature, LoadOptions, Runner, RunnerInfo
from puna.errors import Unsupported
from puna.inference.choice import Choice
from puna.inference.decode import Job, decode_all
from puna.inference.prompt import (
    ChatPrompt,
    Rendering,
    chat_prompt,
    compile_template,
    template_key,
    whole_messages,
)
from puna.inference.sampling import Decided, choice_seed, decide, first_seed, require, sampling
from puna.inference.think import think_arguments
from puna.model.capabilities import Capability
from puna.model.model import Model
from puna.model.name import Name
from puna.settings import Settings
from puna.types import (
    AudioPart,
    ChatRequest,
    Done,
    Event,
    ImagePart,
    Message,
    Options,
    Part,
    Started,
    Timings,
    Usage,
)


class Models(Protocol):
    """Where models are found: `puna.store.library.Library`."""

    def resolve(self, name: Name) -> Model: ...


class Leased(Protocol):
    @property
    def runner(self) -> Runner: ...

    @property
    def load_ns(self) -> int: ...


class Runners(Protocol):
    """Where runners come from: `puna.scheduler.scheduler.Scheduler`."""

    def lease(
        self, model: Model, options: Options, *, keep_alive: float | None = None, embedding: bool = False
    ) -> AbstractAsyncContextManager[Leased]: ...

    async def unload(self, name: Name) -> bool: ...


class Inference:
    """Holds no request's state; safe to use from many tasks."""

    def __init__(self, library: Models, scheduler: Runners, settings: Settings) -> None:
        self._library = library
        self._scheduler = scheduler
        self._settings = settings
        self._compiled = lru_cache(maxsize=64)(compile_template)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Started, the deltas of `n` choices, Finished for each, Done. Raises PunaError, before Started if it can."""
        began = time.perf_counter_ns()
        model = await self._resolve(request.model)
        template = self._template(model, request.template)
        _check_chat(model, template, request)
        async with self._lease(model, request.options, request.keep_alive) as lease:
            run = _ChatRun(model, template, request, lease.runner)
            async with aclosing(run.events(began, lease.load_ns)) as events:
                async for event in events:
                    yield event

    async def count(self, request: ChatRequest) -> int:
        """How many tokens the prompt of this request is; nothing is generated."""
        model = await self._resolve(request.model)
        template = self._template(model, request.template)
        _check_chat(model, template, request)
        async with self._lease(model, request.options, request.keep_alive) as lease:
            run = _ChatRun(model, template, request, lease.runner)
            return len((await run.prompt()).prompt.tokens)

    async def load(self, name: str, options: Options, keep_alive: float | None) -> int:
        """Load a model, if it is not. Returns how long that took, in nanoseconds."""
        model = await self._resolve(name)
        async with self._lease(model, options, keep_alive) as lease:
            return lease.load_ns

    async def unload(self, name: str) -> bool:
        """Whether it was loaded. Raises ModelNotFound."""
        model = await self._resolve(name)
        return await self._scheduler.unload(model.name)

    async def tokenize(self, name: str, text: str, *, special: bool = True, bos: bool = False) -> list[int]:
        model = await self._resolve(name)
        async with self._lease(model, Options(), None) as lease:
            return await lease.runner.tokenize(text, special=special, bos=bos)

    async def detokenize(self, name: str, ids: Sequence[int]) -> str:
        model = await self._resolve(name)
        async with self._lease(model, Options(), None) as lease:
            return (await lease.runner.detokenize(ids)).decode(errors="replace")

    async def _resolve(self, name: str) -> Model:
        """In a thread: it reads a manifest and a header."""
        return await asyncio.to_thread(self._library.resolve, Name.parse(name))

    def _template(self, model: Model, override: str | None) -> ChatTemplate:
        return self._compiled(template_key(model, override))

    def _lease(
        self, model: Model, options: Options, keep_alive: float | None, *, embedding: bool = False
    ) -> AbstractAsyncContextManager[Leased]:
        return self._scheduler.lease(model, options.over(model.options), keep_alive=keep_alive, embedding=embedding)


class _ChatRun:
    """One chat on one Runner."""

    def __init__(self, model: Model, template: ChatTemplate, request: ChatRequest, runner: Runner) -> None:
        self.model = model
        self.template = template
        self.request = request
        self.runner = runner
        self.arguments, self.think_ignored = think_arguments(request.think, request.template_arguments, template.facts)

    async def prompt(self) -> ChatPrompt:
        messages = whole_messages(self.model, self.request)
        rendering = Rendering(self.template, self.request.tools, self.arguments, self.request.prefill)
        return await chat_prompt(self.runner, rendering, messages, self.request)

    async def events(self, began: int, load_ns: int) -> AsyncGenerator[Event, None]:
        request, info = self.request, self.runner.info
        decided = decide(request.options, self.model.options, info)
        _check_features(info, request)
        built = await self.prompt()
        jobs = self._jobs(decided, built)
        started = self._started(decided, built)
        first = True
        async with aclosing(decode_all(self.runner, jobs)) as batches:
            async for batch in batches:
                # Not before the first step: an engine that refuses does it without an answer begun.
                if first:
                    first = False
                    yield started
                for event in batch:
                    yield event
        yield done(jobs, began, load_ns)

    def _jobs(self, decided: Decided, built: ChatPrompt) -> list[Job]:
        request, options = self.request, decided.options
        limit = room(len(built.prompt.tokens), self.runner.info.num_ctx, options.num_predict)
        seed = first_seed(options.seed, lambda: secrets.randbits(32))
        jobs = []
        for index in range(request.n):
            stream = TextStream(options.stop or (), self.template.facts.thinking, inside=built.inside)
            settings = sampling(
                options,
                max_tokens=max(limit, 1),
                seed=choice_seed(seed, index),
                logprobs=request.logprobs,
                cache_key=request.cache_key,
            )
            choice = Choice(index, stream, logprobs=request.logprobs is not None)
            jobs.append(Job(choice, built.prompt, settings if limit else None))
        return jobs

    def _started(self, decided: Decided, built: ChatPrompt) -> Started:
        info = self.runner.info
        return Started(
            model=self.request.model,
            engine=info.engine,
            fingerprint=fingerprint(self.model, info, self.request.options.over(self.model.options)),
            seed_exact=info.seed_exact,
            num_ctx=info.num_ctx,
            prompt_tokens=built.prompt.tokens,
            dropped_messages=built.dropped,
            ignored=(*decided.ignored, *self.think_ignored),
        )


def done(jobs: Sequence[Job], began: int, load_ns: int) -> Done:
    """The costs of all choices; the prompt that they share counts once, as the first found it."""
    first = jobs[0].tally
    usage = Usage(
        prompt=first.prompt,
        completion=sum(len(job.choice.tokens) for job in jobs),
        cached=first.cached,
        reasoning=sum(job.choice.reasoning for job in jobs),
    )
    decode_ns = max(job.tally.decode_ns for job in jobs)
    total = time.perf_counter_ns() - began
    return Done(usage, Timings(total=total, load=load_ns, prompt=first.prompt_ns, decode=decode_ns))


def fingerprint(model: Model, info: RunnerInfo, options: Options) -> str:
    """Changes with model, engine and load settings."""
    load = [getattr(options, item.name) for item in fields(LoadOptions) if hasattr(options, item.name)]
    facts = (model.digest, info.engine, info.version, info.num_ctx, info.slots, *load)
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:10]


def _check_chat(model: Model, template: ChatTemplate, request: ChatRequest) -> None:
    """What the model cannot do is refused before it is loaded."""
    name = model.name.short
    if Capability.COMPLETION not in model.capabilities:
        raise Unsupported(f'"{name}" does not support chat', param="model")
    if request.think and Capability.THINKING not in model.capabilities and template.facts.thinking is None:
        raise Unsupported(f'"{name}" does not support thinking', param="think")
    if _has(request.messages, ImagePart) and Capability.VISION not in model.capabilities:
        raise Unsupported(f'"{name}" does not support images: it has no vision projector', param="messages")
    if _has(request.messages, AudioPart) and Capability.AUDIO not in model.capabilities:
        raise Unsupported(f'"{name}" does not support audio: it has no audio projector', param="messages")


def _has(messages: Sequence[Message], kind: type[Part]) -> bool:
    return any(isinstance(part, kind) for message in messages for part in message.content)


def _check_features(info: RunnerInfo, request: ChatRequest) -> None:
    if request.logprobs is not None:
        require(info, Feature.LOGPROBS, "log-probabilities", "logprobs")
    if _has(request.messages, ImagePart) or _has(request.messages, AudioPart):
        require(info, Feature.MEDIA, "images and audio", "messages")
