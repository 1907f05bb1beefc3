"""Shards, projectors and adapters that are damaged or made to do harm, given to a whole server and its engines.

Each ends in words, and the server lives. With PUNA_TEST_MUTATIONS all are tried, else each eighth.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from fakes.hostile_parts import hostile_parts
from fakes.projectors import plain
from puna.model.digest import Digest

from .conftest import serve

EACH = 1 if "PUNA_TEST_MUTATIONS" in os.environ else 8

PICTURE = "data:image/png;base64," + base64.b64encode(plain((255, 0, 0))).decode()

LOADED_OR_NOT = {"model_load_failed", "invalid_model_file", "unsupported_value", "overloaded"}


def sent(url: str, files: Mapping[str, bytes]) -> dict[str, str]:
    digests = {name: str(Digest.of(data)) for name, data in files.items()}
    for name, digest in digests.items():
        assert httpx.post(f"{url}/api/blobs/{digest}", content=files[name]).status_code in {200, 201}
    return digests


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("engine", ["llama", "cpu"])
def test_hostile_parts_never_end_the_server(tmp_path: Path, engine: str) -> None:
    with serve(tmp_path / "models", tmp_path / "log", PUNA_ENGINE=engine) as program:
        server = psutil.Process(program.process.pid)
        made, before = 0, server.memory_info().rss
        for part in hostile_parts()[::EACH]:
            body: dict[str, Any] = {"model": "x", "stream": False, "files": sent(program.url, part.files)}
            if part.adapters:
                body["adapters"] = sent(program.url, part.adapters)
            created = httpx.post(f"{program.url}/api/create", json=body, timeout=60)
            if created.status_code != 200:
                assert (created.status_code, bool(created.json()["error"])) == (400, True), (part.name, created.text)
                continue
            made += 1
            seen = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
            messages = [{"role": "user", "content": seen if part.sees else "Hi"}]
            chat = {"model": "x", "messages": messages, "max_tokens": 2}
            answer = httpx.post(f"{program.url}/v1/chat/completions", json=chat, timeout=200)
            told = answer.json().get("error", {})
            assert answer.status_code == 200 or told.get("code") in LOADED_OR_NOT, (part.name, answer.text)
            assert httpx.post(f"{program.url}/api/show", json={"model": "x"}, timeout=60).status_code == 200
        assert server.is_running()
        assert httpx.get(f"{program.url}/api/tags", timeout=60).status_code == 200
        assert server.memory_info().rss < before + (64 << 20)
        assert made
