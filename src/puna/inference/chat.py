"""One chat on one Runner."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from puna.chat.facts import ChatTemplate
from puna.chat.fit import room
from puna.chat.text import TextStream
from puna.chat.thought import thought_first
from puna.engine.runner import Constraint, Feature, Runner, RunnerInfo
from puna.errors import Unsupported
from puna.inference.choice import Choice
from puna.inference.constraint import output_gbnf
from puna.inference.controls import control_bytes
from puna.inference.decode import Job, decode_all
from puna.inference.prompt import ChatPrompt, Rendering, chat_prompt, whole_messages
from puna.inference.report import done, started, whole
from puna.inference.sampling import Decided, choice_seed, decide, first_seed, require, sampling
from puna.inference.think import think_arguments
from puna.model.capabilities import Capability
from puna.model.model import Model
from puna.types import AudioPart, ChatRequest, Event, ImagePart, Message, Part


def check_chat(model: Model, template: ChatTemplate, request: ChatRequest) -> None:
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


class ChatRun:
    """`request` is checked against `model`; `runner` is leased for as long as the run is used."""

    def __init__(self, model: Model, template: ChatTemplate, request: ChatRequest, runner: Runner) -> None:
        self._model = model
        self._template = template
        self._request = request
        self._runner = runner
        self._arguments, self._ignored = think_arguments(request.think, request.template_arguments, template.facts)

    async def prompt(self) -> ChatPrompt:
        messages = whole_messages(self._model, self._request)
        rendering = Rendering(self._template, self._request.tools, self._arguments, self._request.prefill)
        return await chat_prompt(self._runner, rendering, messages, self._request)

    async def events(self, began: int, load_ns: int) -> AsyncGenerator[Event, None]:
        """All events. `began`: when the request came, `load_ns`: how long its lease took."""
        request, info = self._request, self._runner.info
        decided = decide(request.options, self._model.options, info)
        _check_features(info, request)
        built = await self.prompt()
        jobs = await self._jobs(decided, built)
        first = started(
            request.model,
            self._model,
            info,
            request.options,
            prompt=built.prompt.tokens,
            dropped=built.dropped,
            ignored=(*decided.ignored, *self._ignored),
        )
        batches = decode_all(self._runner, jobs)
        async with aclosing(whole(first, batches, lambda: done([jobs], began, load_ns))) as events:
            async for event in events:
                yield event

    async def _jobs(self, decided: Decided, built: ChatPrompt) -> list[Job]:
        request, options, tags = self._request, decided.options, self._template.facts.thinking
        limit = room(len(built.prompt.tokens), self._runner.info.num_ctx, options.num_predict)
        seed = first_seed(options.seed, lambda: secrets.randbits(32))
        stops = options.stop or ()
        marks = (*stops, *((tags.open, tags.close) if tags else ()))
        controls = await control_bytes(self._runner, marks)
        constraint = self._constraint(built)
        jobs = []
        for index in range(request.n):
            stream = TextStream(stops, tags, inside=built.inside)
            choice = Choice(index, stream, controls=controls, logprobs=request.logprobs is not None)
            settings = sampling(
                options,
                max_tokens=max(limit, 1),
                seed=choice_seed(seed, index),
                logprobs=request.logprobs,
                cache_key=request.cache_key,
            )
            jobs.append(Job(choice, built.prompt, settings if limit else None, constraint))
        return jobs

    def _constraint(self, built: ChatPrompt) -> Constraint | None:
        if self._request.output is None:
            return None
        gbnf = output_gbnf(self._request.output)
        tags = self._template.facts.thinking
        if tags is not None and (built.inside or self._request.think is not False):
            gbnf = thought_first(gbnf, tags, inside=built.inside)
        return Constraint(gbnf)


def _has(messages: Sequence[Message], kind: type[Part]) -> bool:
    return any(isinstance(part, kind) for message in messages for part in message.content)


def _check_features(info: RunnerInfo, request: ChatRequest) -> None:
    if request.logprobs is not None:
        require(info, Feature.LOGPROBS, "log-probabilities", "logprobs")
    if request.output is not None:
        require(info, Feature.CONSTRAINT, "constrained output", "response_format")
    if _has(request.messages, ImagePart) or _has(request.messages, AudioPart):
        require(info, Feature.MEDIA, "images and audio", "messages")
