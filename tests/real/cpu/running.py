"""A cpu engine's runner in a test, and whole answers from it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.engine.cpu.client import CpuEngine
from puna.engine.runner import Constraint, End, LoadOptions, ModelFiles, Prompt, Runner, Sampling, Token
from puna.settings import Settings


def files(model: Path) -> ModelFiles:
    return ModelFiles(model, digest="0" * 64, architecture="llama", quantization="Q4_1")


@contextlib.asynccontextmanager
async def started(
    model: Path, store: Path, *, num_ctx: int = 512, slots: int = 17, **settings: Any
) -> AsyncIterator[Runner]:
    """A runner over `model`. `store`: the models directory that its settings name."""
    engine = CpuEngine(Settings(models=store, **settings))
    runner = await engine.start(files(model), LoadOptions(num_ctx=num_ctx, slots=slots, num_thread=2))
    try:
        yield runner
    finally:
        await runner.close()


@dataclass(frozen=True)
class Answered:
    tokens: tuple[Token, ...]
    end: End

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @property
    def data(self) -> bytes:
        return b"".join(token.data for token in self.tokens)


async def answer(
    runner: Runner, prompt: Sequence[int], gbnf: str | None = None, prediction: Sequence[int] = (), **said: Any
) -> Answered:
    sampling = Sampling(**{"max_tokens": 24, "seed": 42, "ignore_eos": True, **said})
    tokens: list[Token] = []
    asked = Prompt(tuple(prompt), prediction=tuple(prediction))
    async for step in runner.generate(asked, sampling, Constraint(gbnf) if gbnf else None):
        if isinstance(step, End):
            return Answered(tuple(tokens), step)
        if isinstance(step, Token):
            tokens.append(step)
    raise AssertionError("an answer without an end")
