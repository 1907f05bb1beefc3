"""Clients that ask for contexts of different sizes: the model stays loaded, and each gets what it asked for."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from .conftest import SHALLOW, Program, serve


def generate(program: Program, num_ctx: int, prompt: str = "Tell a story.", **fields: Any) -> dict[str, Any]:
    options = {"num_ctx": num_ctx, "seed": 7, "temperature": 1.0, "num_predict": 12, "repeat_last_n": -1}
    body = {"model": SHALLOW, "prompt": prompt, "stream": False, "options": options, **fields}
    with urllib.request.urlopen(f"{program.url}/api/generate", json.dumps(body).encode()) as answer:
        return dict(json.load(answer))


def test_a_smaller_context_is_served_from_a_larger_one(program: Program) -> None:
    program.command("stop", SHALLOW)
    first = generate(program, 512)
    small = [runner.pid for runner in program.runners()]
    generate(program, 1024)
    large = [runner.pid for runner in program.runners()]
    assert set(small) != set(large)
    again = [generate(program, size) for size in (512, 1024, 512)]
    assert [runner.pid for runner in program.runners()] == large
    assert [answer["response"] for answer in again] == [first["response"]] * 3
    long = "word " * 700
    with pytest.raises(urllib.error.HTTPError) as refused:
        generate(program, 512, long, truncate=False)
    assert refused.value.code == 400
    assert "512" in json.load(refused.value)["error"]
    assert generate(program, 1024, long, truncate=False)["prompt_eval_count"] > 700


@pytest.mark.parametrize(("engine", "parallel"), [("cpu", "0"), ("cpu", "2"), ("llama", "2")])
def test_the_context_that_a_refusal_names_is_taken(
    engine: str, parallel: str, shallow_store: Path, tmp_path: Path
) -> None:
    settings = {"PUNA_ENGINE": engine, "PUNA_NUM_PARALLEL": parallel}
    with serve(shallow_store, tmp_path / "log", **settings) as program:
        limit = (taken(program, 512) + taken(program, 8192)) // 2
    with serve(shallow_store, tmp_path / "limited", **settings, PUNA_MEMORY_LIMIT=str(limit)) as program:
        with pytest.raises(urllib.error.HTTPError) as refused:
            generate(program, 8192)
        named = re.search(r"num_ctx (\d+) would fit", json.load(refused.value)["error"])
        assert named is not None
        num_ctx = int(named[1])
        assert 512 <= num_ctx < 8192
        assert generate(program, num_ctx)["eval_count"] == 12
        with urllib.request.urlopen(f"{program.url}/api/ps") as answer:
            (model,) = json.load(answer)["models"]
        assert (model["engine"], model["context_length"]) == (engine, num_ctx)


def taken(program: Program, num_ctx: int) -> int:
    """Bytes that as few contexts of so many tokens as may be are told to take with their model."""
    body = json.dumps({"model": SHALLOW, "options": {"num_ctx": num_ctx}}).encode()
    with urllib.request.urlopen(f"{program.url}/api/estimate", body) as answer:
        told = json.load(answer)
    return int(told["weights"] + told["compute"] + told["cache"] * told["least_slots"] // told["slots"])
