"""Clients that ask for contexts of different sizes: the model stays loaded, and each gets what it asked for."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from .conftest import SHALLOW, Program


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
