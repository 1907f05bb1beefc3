"""Models of a stand-in hub: pulled by the command, killed and pulled on, run on real engines."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fakes.gguf_files import byte_tokens, write_tiny_llama
from fakes.hub import StandInHub, StandInRepository
from fakes.projectors import IMAGE_TOKENS, plain, write_projector
from puna.model.ggml import TensorType
from puna.model.shards import ShardName

from .conftest import Program, serve

WORDS = [f"word{number}" for number in range(60_000)]
"""They make the first file large enough to be cut off in."""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StandInRepository]:
    directory = tmp_path_factory.mktemp("published")
    write_tiny_llama(directory / "Big-F32.gguf", head=32, more_tokens=WORDS, shards=3)
    names = ShardName("Big-F32", 1, 3).all
    seen = write_tiny_llama(directory / "s.gguf", context_length=4096, more_tokens=IMAGE_TOKENS, kind=TensorType.Q8_0)
    whole = write_tiny_llama(directory / "whole.gguf", head=32, more_tokens=WORDS)
    return {
        "Org/Big-GGUF": StandInRepository({f"F32/{name}": (directory / name).read_bytes() for name in names}),
        "Org/Whole-GGUF": StandInRepository({"Whole-F32.gguf": whole.read_bytes()}),
        "Org/Seen-GGUF": StandInRepository(
            {
                "Seen-Q8_0.gguf": seen.read_bytes(),
                "Seen-F16.gguf": whole.read_bytes(),
                "mmproj-Seen-F16.gguf": write_projector(directory / "p.gguf").read_bytes(),
                "system": b"You see.",
            },
            token="hf_right",
        ),
    }


@pytest.fixture
async def hub(repositories: dict[str, StandInRepository]) -> AsyncIterator[StandInHub]:
    async with StandInHub(repositories).serving() as running:
        yield running


async def command(program: Program, *arguments: str) -> str:
    done = await asyncio.to_thread(program.command, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def pull_until(program: Program, model: str, least: int) -> None:
    """Ask for it, and go on until the first file has so many bytes."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{program.url}/api/pull", json={"model": model}) as answer,
    ):
        async for line in answer.content:
            step = json.loads(line)
            assert "error" not in step, step
            if step.get("completed", 0) >= least:
                return
    raise AssertionError("it was there before it could be cut off")


async def answered(program: Program, model: str) -> list[float]:
    """The log probabilities of an answer that no control token ends."""
    special = {str(len(byte_tokens()) - 1 - place): -100 for place in range(3)}
    body = {"model": model, "prompt": "the thing", "temperature": 0, "max_tokens": 4, "logprobs": 1}
    asked = {**body, "logit_bias": special}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{program.url}/v1/completions", json=asked) as answer,
    ):
        shape: Any = await answer.json()
        assert answer.status == 200, shape
        return list(shape["choices"][0]["logprobs"]["token_logprobs"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["llama", "cpu"])
async def test_shards_are_pulled_on_after_a_kill_and_run(hub: StandInHub, tmp_path: Path, engine: str) -> None:
    files = hub.repositories["Org/Big-GGUF"].files
    total, first = sum(map(len, files.values())), max(map(len, files.values()))
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "PUNA_ENGINE": engine}
    hub.per_second = 8_000_000
    with serve(tmp_path / "models", tmp_path / "log", **settings) as program:
        await pull_until(program, "hf.co/Org/Big-GGUF", first * 3 // 4)
        program.process.kill()
        await asyncio.to_thread(program.process.wait)
    hub.per_second, hub.sent = 0, 0
    with serve(tmp_path / "models", tmp_path / "log", **settings) as program:
        assert "Big" not in await command(program, "list")
        await command(program, "pull", "hf.co/Org/Big-GGUF")
        assert hub.sent < total - first // 4
        await command(program, "pull", "huggingface.co/Org/Whole-GGUF")
        numbers = await answered(program, "hf.co/Org/Big-GGUF")
        assert len(numbers) == 4
        assert numbers == await answered(program, "huggingface.co/Org/Whole-GGUF")
        await command(program, "rm", "hf.co/Org/Big-GGUF", "huggingface.co/Org/Whole-GGUF")
    assert list((tmp_path / "models" / "blobs").iterdir()) == []


@pytest.mark.timeout(300)
async def test_a_private_one_with_its_projector_sees(hub: StandInHub, tmp_path: Path) -> None:
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_right"}
    with serve(tmp_path / "models", tmp_path / "log", **settings) as program:
        missing = await asyncio.to_thread(program.command, "pull", "hf.co/Org/Seen-GGUF:Q4_K_M")
        assert missing.returncode == 1
        assert "has no quantisation 'Q4_K_M'; it has Q8_0, F16" in missing.stderr
        await command(program, "pull", "hf.co/org/seen-gguf")
        shown = await command(program, "show", "hf.co/org/seen-gguf")
        assert "vision" in shown
        assert "You see." in shown
        picture = base64.b64encode(plain((255, 0, 0))).decode()
        message = {"role": "user", "content": "What is it?", "images": [picture]}
        body = {"model": "hf.co/org/seen-gguf", "messages": [message], "stream": False, "options": {"num_predict": 2}}
        async with aiohttp.ClientSession() as session, session.post(f"{program.url}/api/chat", json=body) as answer:
            assert answer.status == 200, await answer.text()
    assert hub.tokens["store"] == {""}
