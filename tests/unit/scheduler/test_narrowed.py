"""A runner that is asked for less context than it has, about media: what these come to is known once they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from puna.engine.runner import End, Prefilled, Prompt, Runner, RunnerInfo, Sampling, Step, Token
from puna.errors import ContextLengthExceeded
from puna.scheduler.narrowed import narrowed

SEEN = Prompt((1, 2), texts=("", ""), media=(b"image",))
READ = Prefilled(prompt_tokens=10, cached_tokens=3, prompt_ns=5)


class Seeing:
    """Answers with so many tokens about a prompt that comes to ten. `ended`: how many answers were closed."""

    info = RunnerInfo("x", "1", 4096, 1, 256, None, (), False, 8, True, frozenset(), 0)

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.ended = 0

    async def generate(self, prompt: Prompt, sampling: Sampling, *_: Any) -> AsyncIterator[Step]:
        try:
            if sampling.prefilled:
                yield READ
            for number in range(self.tokens):
                yield Token(number, b"x")
            yield End("stop", 10, 3, self.tokens, 5, 7)
        finally:
            self.ended += 1


async def answer(seeing: Seeing, num_ctx: int, *, prefilled: bool = False) -> list[Step]:
    runner = narrowed(cast("Runner", seeing), num_ctx)
    return [step async for step in runner.generate(SEEN, Sampling(max_tokens=100, seed=1, prefilled=prefilled))]


async def test_an_answer_about_media_ends_where_the_context_is_full() -> None:
    seeing = Seeing(50)
    *steps, end = await answer(seeing, 16, prefilled=True)
    assert steps == [READ, *(Token(number, b"x") for number in range(6))]
    assert isinstance(end, End)
    assert (end.reason, end.prompt_tokens, end.cached_tokens, end.completion_tokens) == ("length", 10, 3, 6)
    assert seeing.ended == 1


async def test_one_that_fits_is_told_as_it_is() -> None:
    *tokens, end = await answer(Seeing(3), 16)
    assert len(tokens) == 3
    assert end == End("stop", 10, 3, 3, 5, 7)


async def test_media_that_do_not_fit_are_refused_with_both_numbers() -> None:
    seeing = Seeing(3)
    with pytest.raises(ContextLengthExceeded) as caught:
        await answer(seeing, 10)
    assert (caught.value.tokens, caught.value.limit) == (10, 10)
    assert seeing.ended == 1
