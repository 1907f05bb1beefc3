"""Real runners of the llama engine, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from puna.engine.llama.engine import LlamaEngine
from puna.engine.runner import LoadOptions, ModelFiles, Runner
from puna.settings import Settings

Start = Callable[..., Awaitable[Runner]]


@asynccontextmanager
async def starting(weights: Path) -> AsyncIterator[Start]:
    """Starts runners of the real model; closes them at the end."""
    async with AsyncExitStack() as stack:

        async def start(*, slots: int = 4, num_ctx: int = 1024, embedding: bool = False) -> Runner:
            engine = LlamaEngine(Settings(models=Path("none")))
            load = LoadOptions(num_ctx=num_ctx, slots=slots, embedding=embedding)
            files = ModelFiles(weights, "0" * 64, "llama", "Q4_1", name="smollm2:135m")
            runner = await engine.start(files, load)
            stack.push_async_callback(runner.close)
            return runner

        yield start
