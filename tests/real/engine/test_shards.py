"""A model in several files, as llama.cpp splits them, on both engines: it answers as its one file does."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.gguf_files import write_tiny_llama
from puna.engine.cpu.client import CpuEngine
from puna.engine.engine import Engine
from puna.engine.llama.engine import LlamaEngine
from puna.engine.runner import LoadOptions, ModelFiles, Prompt, Sampling, Token
from puna.model.shards import ShardName
from puna.settings import Settings


async def ids(engine: Engine, files: ModelFiles) -> list[int]:
    runner = await engine.start(files, LoadOptions(num_ctx=256, slots=1))
    try:
        prompt = Prompt(tuple(await runner.tokenize("the thing", special=True, bos=False)))
        steps = [step async for step in runner.generate(prompt, Sampling(max_tokens=12, temperature=0.0, seed=1))]
        return [step.id for step in steps if isinstance(step, Token)]
    finally:
        await runner.close()


@pytest.mark.parametrize("kind", [LlamaEngine, CpuEngine])
async def test_shards_answer_as_one_file(tmp_path: Path, kind: type[LlamaEngine] | type[CpuEngine]) -> None:
    engine = kind(Settings(models=tmp_path / "models"))
    one = write_tiny_llama(tmp_path / "one.gguf", head=32)
    write_tiny_llama(tmp_path / "tiny.gguf", head=32, shards=3)
    # In a store a blob is called by its digest, and no two need lie in one directory.
    blobs = []
    for number, name in enumerate(ShardName("tiny", 1, 3).all):
        blob = tmp_path / f"store{number}" / f"sha256-{number}"
        blob.parent.mkdir()
        blobs.append((tmp_path / name).rename(blob))
    whole = await ids(engine, ModelFiles(one, "", "llama", "F32"))
    assert whole
    assert await ids(engine, ModelFiles(blobs[0], "", "llama", "F32", shards=tuple(blobs[1:]))) == whole
