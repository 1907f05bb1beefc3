"""A runner with less context than it was loaded with, for a request that asks for less.

So a model is not loaded anew for each size of context that its clients ask for, and each gets what it asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import cast

from puna.engine.runner import (
    Constraint,
    End,
    Prefilled,
    Prompt,
    Ranked,
    Runner,
    RunnerInfo,
    Sampling,
    Step,
    Token,
    Weighed,
)
from puna.errors import ContextLengthExceeded
from puna.types import Candidate


def narrowed(runner: Runner, num_ctx: int) -> Runner:
    """`runner`, or one that keeps to `num_ctx` tokens of its context where that is less."""
    return runner if num_ctx >= runner.info.num_ctx else Narrowed(runner, num_ctx)


class Narrowed:
    """See `puna.engine.runner.Runner`. What media come to only the engine knows: it is counted once they are read."""

    def __init__(self, runner: Runner, num_ctx: int) -> None:
        self._runner = runner
        self._info = replace(runner.info, num_ctx=num_ctx)

    @property
    def info(self) -> RunnerInfo:
        return self._info

    @property
    def died(self) -> asyncio.Future[str]:
        return self._runner.died

    async def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        return await self._runner.tokenize(text, special=special, bos=bos)

    async def detokenize(self, tokens: Sequence[int]) -> bytes:
        return await self._runner.detokenize(tokens)

    def generate(self, prompt: Prompt, sampling: Sampling, constraint: Constraint | None = None) -> AsyncIterator[Step]:
        num_ctx, size = self._info.num_ctx, len(prompt.tokens)
        window = num_ctx if sampling.repeat_last_n < 0 else min(sampling.repeat_last_n, num_ctx)
        sampling = replace(sampling, repeat_last_n=window)
        if prompt.media:
            asked = replace(sampling, prefilled=True)
            return _within(num_ctx, self._runner.generate(prompt, asked, constraint), told=sampling.prefilled)
        if size >= num_ctx:
            raise ContextLengthExceeded(size, num_ctx, param="prompt", what="prompt")
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, num_ctx - size))
        return self._runner.generate(prompt, sampling, constraint)

    async def score(self, tokens: Sequence[int], *, top: int) -> list[tuple[float, tuple[Candidate, ...]]]:
        if len(tokens) > self._info.num_ctx:
            raise ContextLengthExceeded(len(tokens), self._info.num_ctx, param="prompt", what="prompt")
        return await self._runner.score(tokens, top=top)

    async def weigh(self, tokens: Sequence[int], following: Sequence[int]) -> Weighed:
        if len(tokens) >= self._info.num_ctx:
            raise ContextLengthExceeded(len(tokens), self._info.num_ctx, param="prompt", what="prompt")
        return await self._runner.weigh(tokens, following)

    async def embed(self, tokens: Sequence[int]) -> list[float]:
        if len(tokens) > self._info.num_ctx:
            raise ContextLengthExceeded(len(tokens), self._info.num_ctx, param="input", what="input")
        return await self._runner.embed(tokens)

    async def rank(self, query: str, document: str) -> Ranked:
        """What a pair comes to only the engine knows: its own context counts."""
        return await self._runner.rank(query, document)

    async def busy(self) -> int:
        return await self._runner.busy()

    async def strays(self) -> frozenset[Hashable]:
        return await self._runner.strays()

    def kill(self, why: str) -> None:
        self._runner.kill(why)

    async def close(self) -> None:
        await self._runner.close()


async def _within(num_ctx: int, steps: AsyncIterator[Step], *, told: bool) -> AsyncGenerator[Step, None]:
    """Steps of an answer that ends where prompt and answer fill the context. ContextLengthExceeded by the prompt.

    `told`: whether who asked wants to know when the prompt is read.
    """
    read, made, began = Prefilled(0, 0, 0), 0, time.perf_counter_ns()
    async with aclosing(cast("AsyncGenerator[Step, None]", steps)):
        async for step in steps:
            if isinstance(step, Prefilled):
                read, began = step, time.perf_counter_ns()
                if step.prompt_tokens >= num_ctx:
                    raise ContextLengthExceeded(step.prompt_tokens, num_ctx, param="prompt", what="prompt")
            if told or not isinstance(step, Prefilled):
                yield step
            made += isinstance(step, Token)
            if isinstance(step, Token) and read.prompt_tokens + made >= num_ctx:
                spent = time.perf_counter_ns() - began
                yield End("length", read.prompt_tokens, read.cached_tokens, made, read.prompt_ns, spent)
                return
