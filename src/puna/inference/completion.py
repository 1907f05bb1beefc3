"""One completion request on one Runner: prompts continued as they are."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from puna.chat.calls import plan_calls
from puna.chat.disguise import Disguise, Given, Written
from puna.chat.fit import check_fit, room
from puna.chat.text import TextStream
from puna.engine.runner import Constraint, Feature, Prompt, Runner, RunnerInfo
from puna.errors import InvalidRequest, Unsupported
from puna.inference.choice import Choice, ChoiceEvent
from puna.inference.controls import all_control_bytes, control_bytes, in_a_form
from puna.inference.decode import Job, decode_all
from puna.inference.length import check_least_beside
from puna.inference.literal import tokenize_prompt, tokenize_written
from puna.inference.logprobs import entry
from puna.inference.prompt import WAITING
from puna.inference.report import done, started, whole
from puna.inference.sampling import Decided, choice_seed, decide, first_seed, require, sampling
from puna.lane import in_planning
from puna.model.capabilities import Capability, fill_in_tokens
from puna.model.markup import Markup
from puna.model.model import Model
from puna.template.facts import ChatTemplate
from puna.types import Candidate, CompletionRequest, Event, Output, TextDelta, TokenLogprob, ToolChoice

NO_LOGPROB = float("nan")
"""Of the first token of an echoed prompt: nothing comes before it."""

_AT_A_TURN = 64
"""Prompts whose jobs are made in one turn of the event loop."""


@dataclass(frozen=True, slots=True)
class _Text:
    """A prompt: its tokens, the text that an echo shows, how many tokens were `added` before those of that text."""

    tokens: tuple[int, ...]
    echo: str
    added: int = 0


def check_completion(model: Model, request: CompletionRequest) -> None:
    """What makes no sense, or is beyond the model, is refused before it is loaded."""
    if Capability.COMPLETION not in model.capabilities:
        raise Unsupported(f'"{model.name.short}" does not support completion', param="model")
    if not request.prompts:
        raise InvalidRequest("there is no prompt", param="prompt", code="empty_array")
    if request.best_of is not None and request.best_of < request.n:
        raise InvalidRequest("best_of must be at least n", param="best_of")


class CompletionRun:
    """A completion request on its way through a runner.

    `request` is checked; `template` is the model's, for filling in the middle.
    """

    def __init__(self, model: Model, template: ChatTemplate, request: CompletionRequest, runner: Runner) -> None:
        self._model = model
        self._template = template
        self._request = request
        self._runner = runner

    async def events(self, began: int, load_ns: int) -> AsyncGenerator[Event, None]:
        """All events, none begun. `began`: when the request came, `load_ns`: how long its lease took."""
        request, info = self._request, self._runner.info
        decided = decide(request.options, self._model.options, info)
        _check_features(info, request)
        texts = [await self._text(place) for place in range(len(request.prompts))]
        for text in texts:
            check_fit(len(text.tokens), info.num_ctx, param="prompt", what="prompt")
        groups = await self._jobs(decided, texts)
        first = started(
            request.model,
            self._model,
            info,
            request.options,
            prompt=texts[0].tokens,
            ignored=decided.ignored,
            ignored_parameters=decided.ignored_parameters,
        )
        batches = decode_all(self._runner, [job for group in groups for job in group])
        if self._request.best_of not in (None, self._request.n):
            batches = self._best(groups, batches)
        return whole(first, batches, lambda: done(groups, began, load_ns))

    async def _best(
        self, groups: Sequence[Sequence[Job]], batches: AsyncGenerator[Sequence[ChoiceEvent], None]
    ) -> AsyncGenerator[Sequence[ChoiceEvent], None]:
        """The events of each group's best choices, once all have ended."""
        jobs = [job for group in groups for job in group]
        async with aclosing(batches):
            kept: dict[int, list[ChoiceEvent]] = {job.choice.index: [] for job in jobs}
            async for batch in batches:
                for event in batch:
                    kept[event.index].append(event)
        index = 0
        for group in groups:
            ranked = sorted(group, key=lambda job: -job.choice.mean_logprob)
            for job in ranked[: self._request.n]:
                yield [replace(event, index=index) for event in kept[job.choice.index]]
                index += 1

    # --------------------------------------------------------------------------------------------------- the prompts

    async def _text(self, place: int) -> _Text:
        prompt = self._request.prompts[place]
        texts = [text for text in (prompt, self._request.suffix) if isinstance(text, str)]
        num_ctx = self._runner.info.num_ctx
        await check_least_beside(texts, self._model.header, num_ctx, param="prompt", what="prompt")
        if self._request.suffix is not None:
            return await self._insert(prompt, self._request.suffix)
        if isinstance(prompt, str):
            tokens = await tokenize_prompt(self._runner, prompt, self._template.bos)
            written = bool(self._template.bos) and prompt.startswith(self._template.bos)
            begun = self._begun(tokens)
            return _Text(begun, prompt, int(not written and begun[0] == self._runner.info.bos))
        _check_ids(prompt, self._runner.info)
        shown = await self._runner.detokenize(prompt) if self._request.echo and prompt else b""
        return _Text(self._begun(prompt), shown.decode(errors="replace"), 0 if prompt else 1)

    def _begun(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Something to continue: an empty prompt is the beginning of a text."""
        if tokens:
            return tuple(tokens)
        info = self._runner.info
        start = info.bos if info.bos is not None else next(iter(info.eos), None)
        if start is None:
            raise InvalidRequest("the prompt is empty", param="prompt")
        return (start,)

    async def _insert(self, prompt: str | tuple[int, ...], suffix: str) -> _Text:
        """Fill in the middle, by the template's rule or with the vocabulary's own tokens."""
        shown = prompt if isinstance(prompt, str) else (await self._runner.detokenize(prompt)).decode(errors="replace")
        if self._template.inserts:
            markup = self._runner.info.markup
            written = await WAITING[self._template.trust](lambda: _inserted(self._template, shown, suffix, markup))
            return _Text(tuple(await tokenize_written(self._runner, written, self._template.bos)), shown)
        before, after, middle = self._insert_tokens()
        left = await self._runner.tokenize(shown, special=False, bos=False) if isinstance(prompt, str) else prompt
        right = await self._runner.tokenize(suffix, special=False, bos=False)
        info = self._runner.info
        bos = (info.bos,) if info.add_bos and info.bos is not None else ()
        return _Text((*bos, before, *left, after, *right, middle), shown)

    def _insert_tokens(self) -> tuple[int, int, int]:
        tokens = fill_in_tokens(self._model.header)
        if tokens is None:
            raise Unsupported(f'"{self._model.name.short}" does not support insert', param="suffix")
        return tokens

    # ------------------------------------------------------------------------------------------------------ the jobs

    async def _jobs(self, decided: Decided, texts: Sequence[_Text]) -> list[list[Job]]:
        request, options = self._request, decided.options
        stops = options.stop or ()
        output = request.output
        if output is None:
            constraint, controls = None, await control_bytes(self._runner, stops)
        else:
            constraint = await in_planning(lambda: _constraint(output))
            if request.options.stop is None:
                stops = in_a_form(stops, self._runner.info.markup)
            controls = all_control_bytes(self._runner.info.markup)
        many = request.best_of or request.n
        ranked = many > request.n
        groups: list[list[Job]] = []
        # All at once: each time that the system is asked takes longer than the rest of a job.
        drawn = iter(memoryview(secrets.token_bytes(4 * len(texts))).cast("I"))
        for place, text in enumerate(texts):
            limit = room(len(text.tokens), self._runner.info.num_ctx, options.num_predict)
            echo = await self._echo(text) if request.echo else None
            # A given seed answers a prompt the same wherever it stands; without one, equal prompts differ.
            seed = first_seed(options.seed, partial(next, drawn))
            group = []
            for number in range(many):
                index = place * many + number
                settings = sampling(
                    options,
                    max_tokens=max(limit, 1),
                    seed=choice_seed(seed, number),
                    logprobs=0 if ranked and request.logprobs is None else request.logprobs,
                )
                stream = TextStream(stops, held=constraint is not None)
                choice = Choice(index, stream, controls=controls, logprobs=request.logprobs is not None)
                opening = () if echo is None else (replace(echo, index=index),)
                prompt = Prompt(text.tokens, cache_key=request.cache_key)
                group.append(Job(choice, prompt, settings if limit else None, constraint, opening=opening))
            groups.append(group)
            if place % _AT_A_TURN == 0:
                await asyncio.sleep(0)
        return groups

    async def _echo(self, text: _Text) -> TextDelta:
        """The prompt as the first text of an answer; its choice is set later."""
        if self._request.logprobs is None:
            return TextDelta(0, text.echo)
        scores = await self._runner.score(text.tokens, top=self._request.logprobs)
        pieces = await self._pieces(text.tokens)
        first = TokenLogprob(Candidate(text.tokens[0], pieces[text.tokens[0]], NO_LOGPROB))
        scored = [
            entry(token, pieces[token], logprob, top)
            for token, (logprob, top) in zip(text.tokens[1:], scores, strict=True)
        ]
        return TextDelta(0, text.echo, (first, *scored)[text.added :])

    async def _pieces(self, tokens: Sequence[int]) -> dict[int, bytes]:
        """Each token's own bytes."""
        known = list(dict.fromkeys(tokens))
        pieces: dict[int, bytes] = {}
        for begin in range(0, len(known), 64):
            some = known[begin : begin + 64]
            data = await asyncio.gather(*(self._runner.detokenize([token]) for token in some))
            pieces.update(zip(some, data, strict=True))
        return pieces


def _inserted(template: ChatTemplate, prompt: str, suffix: str, markup: Markup) -> Written:
    """As elsewhere, only what the template writes is markup."""
    given = Given(texts=(prompt, suffix))
    disguise = Disguise.needed(markup, given, template.source)
    if disguise is None:
        return Written(template.insert(prompt, suffix))
    hidden = disguise.given(given)
    return disguise.written(template.insert(*hidden.texts))


def _constraint(output: Output) -> Constraint | None:
    free = plan_calls((), ToolChoice(), parallel=True, native=False, syntax=None, output=output)
    return None if free.constraint is None else Constraint(free.constraint)


def _check_ids(tokens: Sequence[int], info: RunnerInfo) -> None:
    wrong = next((token for token in tokens if not 0 <= token < info.vocabulary), None)
    if wrong is not None:
        raise InvalidRequest(
            f"token {wrong} is not in the model's vocabulary of {info.vocabulary} tokens", param="prompt"
        )


def _check_features(info: RunnerInfo, request: CompletionRequest) -> None:
    if request.logprobs is not None:
        require(info, Feature.LOGPROBS, "log-probabilities", "logprobs")
        if request.echo:
            require(info, Feature.SCORE, "log-probabilities of a prompt", "echo")
    if (request.best_of or request.n) > request.n:
        require(info, Feature.LOGPROBS, "log-probabilities, which choose the best", "best_of")
    if request.output is not None:
        require(info, Feature.CONSTRAINT, "constrained output", "output")
