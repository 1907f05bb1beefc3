"""The engine for a native binary, over a program that takes llama-server's flags and is not that binary."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from fakes.gguf_files import FOREIGN_TEMPLATES, write_tiny_llama
from fakes.llama_server import write_binary
from fakes.projectors import IMAGE_TOKENS, plain, write_projector
from puna.engine.llama.engine import LlamaServerEngine
from puna.engine.runner import End, Feature, LoadOptions, ModelFiles, Prompt, Sampling
from puna.errors import LoadFailed
from puna.settings import Settings

LOAD = LoadOptions(num_ctx=256, slots=2)


async def test_it_runs_the_binary_and_speaks_to_it(tmp_path: Path, smollm2_gguf: Path) -> None:
    engine = LlamaServerEngine(Settings(models=Path("none"), llama_server=write_binary(tmp_path)))
    runner = await engine.start(ModelFiles(smollm2_gguf, "", "llama", "Q4_1"), LOAD, reason="named")
    try:
        info = runner.info
        assert (info.engine, info.reason, info.num_ctx, info.slots) == ("llama-server", "named", 256, 2)
        assert not info.seed_exact, "a binary's devices are not known"
        prompt = Prompt(tuple(await runner.tokenize("Hello", special=True, bos=True)))
        _, *tokens, end = [step async for step in runner.generate(prompt, Sampling(max_tokens=4, seed=1))]
        assert isinstance(end, End)
        assert len(tokens) == end.completion_tokens
        assert info.pid is not None
        child = psutil.Process(info.pid)
        if sys.platform == "linux":
            # The launcher has become the binary.
            assert "llama-server" in " ".join(child.cmdline())
            assert "puna.engine" not in " ".join(child.cmdline())
    finally:
        await runner.close()
    assert not child.is_running()


async def test_it_is_given_the_projector(tmp_path: Path) -> None:
    weights = write_tiny_llama(tmp_path / "tiny.gguf", more_tokens=IMAGE_TOKENS)
    projector = write_projector(tmp_path / "projector.gguf")
    engine = LlamaServerEngine(Settings(models=Path("none"), llama_server=write_binary(tmp_path)))
    runner = await engine.start(ModelFiles(weights, "", "llama", "F32", projectors=(projector,)), LOAD)
    try:
        assert Feature.MEDIA in runner.info.features
        seen = Prompt((65,), ("See: ", ""), (plain((255, 0, 0)),))
        *_, end = [step async for step in runner.generate(seen, Sampling(max_tokens=1, seed=1))]
        assert isinstance(end, End)
        assert end.prompt_tokens > len("See: ")
    finally:
        await runner.close()


@pytest.mark.parametrize("template", FOREIGN_TEMPLATES)
async def test_the_models_template_is_not_the_engines_to_read(tmp_path: Path, template: str) -> None:
    weights = write_tiny_llama(tmp_path / "tiny.gguf", chat_template=template)
    engine = LlamaServerEngine(Settings(models=Path("none"), llama_server=write_binary(tmp_path)))
    runner = await engine.start(ModelFiles(weights, "", "llama", "F32"), LOAD)
    await runner.close()


async def test_without_a_binary_it_says_so(tmp_path: Path, smollm2_gguf: Path) -> None:
    files = ModelFiles(smollm2_gguf, "", "llama", "Q4_1")
    with pytest.raises(LoadFailed, match="PUNA_LLAMA_SERVER"):
        await LlamaServerEngine(Settings(models=Path("none"))).start(files, LOAD)
    with pytest.raises(LoadFailed, match="not a program"):
        await LlamaServerEngine(Settings(models=Path("none"), llama_server=tmp_path / "none")).start(files, LOAD)


async def test_a_binary_that_refuses_its_flags_is_quoted(tmp_path: Path, smollm2_gguf: Path) -> None:
    binary = tmp_path / "llama-server"
    binary.write_text("#!/bin/sh\necho 'error: invalid argument: --no-ui' >&2\nexit 1\n")
    binary.chmod(0o755)
    engine = LlamaServerEngine(Settings(models=Path("none"), llama_server=binary))
    with pytest.raises(LoadFailed, match="exited with 1: error: invalid argument: --no-ui"):
        await engine.start(ModelFiles(smollm2_gguf, "", "llama", "Q4_1"), LOAD)
