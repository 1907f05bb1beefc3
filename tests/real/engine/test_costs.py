"""What a model takes on llama.cpp is what was reckoned from its header."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from fakes.runners import Start
from puna.engine.engine import ModelFacts
from puna.engine.llama.engine import LlamaEngine
from puna.engine.runner import LoadOptions, Prompt, Sampling
from puna.model.gguf import read_header
from puna.scheduler.facts import layout
from puna.settings import Settings


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the pages of a file that are used are not counted")
async def test_the_shipped_model_takes_what_is_reckoned(start: Start, smollm2_gguf: Path) -> None:
    runner = await start(num_ctx=1024, slots=4)
    prompt = Prompt(tuple(range(100, 400)))
    async for _ in runner.generate(prompt, Sampling(max_tokens=2, seed=1, ignore_eos=True)):
        pass
    header = read_header(smollm2_gguf)
    model = ModelFacts(
        architecture="llama", types=frozenset(), metadata=header.metadata, layout=layout(header, beside=0)
    )
    reckoned = LlamaEngine(Settings(models=Path("none"))).memory(model, LoadOptions(num_ctx=1024, slots=4)).total
    assert 0.9 < reckoned / psutil.Process(runner.info.pid).memory_info().rss < 1.1
