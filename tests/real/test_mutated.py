"""Model files with changed headers, given to a whole server and its engines: each ends in words, and the server lives.

`PUNA_TEST_MUTATIONS` says how many are tried.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from fakes.gguf_files import Value, write_tiny_llama
from puna.model.digest import Digest

from .conftest import serve

TRIALS = int(os.environ.get("PUNA_TEST_MUTATIONS", "10"))

KEYS = (
    *("llama.block_count", "llama.context_length", "llama.attention.head_count", "llama.attention.head_count_kv"),
    *("llama.attention.key_length", "llama.rope.dimension_count", "llama.rope.freq_base", "llama.expert_count"),
    *("tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.pre"),
    *("tokenizer.ggml.model", "tokenizer.ggml.scores", "llama.feed_forward_length", "general.architecture"),
    *("general.file_type", "split.count", "llama.attention.causal", "llama.rope.scaling.type", "llama.logit_scale"),
    *("tokenizer.ggml.add_eos_token", "tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.fim_pre_token_id"),
    *("llama.attention.layer_norm_rms_epsilon", "llama.vocab_size", "llama.pooling_type", "llama.expert_used_count"),
)
VALUES: tuple[Value, ...] = (
    *(0, 1, 2, 3, -1, 1 << 12, 1 << 28, 1 << 32, 1 << 60, 0.0, 0.5, 1e30, float("nan"), "", "x", "llama", "gpt2"),
    *(True, [], [1, 2], [0.5] * 261, ["a b", "Ġ t"], ["x"]),
)


UNHEARD = {"tokenizer.ggml.model": "unheard"}
"""Which vocabularies there are only an engine knows: nothing is wrong with it when the header is read."""


def codes_of(answer: httpx.Response) -> str | None:
    error: Any = answer.json().get("error")
    return error["code"] if isinstance(error, dict) else None


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("engine", ["llama", "cpu"])
def test_changed_headers_never_end_the_server(tmp_path: Path, engine: str) -> None:
    with serve(tmp_path / "models", tmp_path / "log", PUNA_ENGINE=engine) as program:
        server = psutil.Process(program.process.pid)
        taken, before = 0, 0
        for trial in range(TRIALS):
            source = random.Random(trial)
            metadata: dict[str, Value] = {
                source.choice(KEYS): source.choice(VALUES) for _ in range(source.choice([1, 2]))
            }
            metadata = metadata if trial else dict(UNHEARD)
            data = write_tiny_llama(
                tmp_path / "x.gguf", metadata=metadata, head=32, norm=1.0 if trial % 3 else 0.5
            ).read_bytes()
            digest = str(Digest.of(data))
            assert httpx.post(f"{program.url}/api/blobs/{digest}", content=data).status_code in {200, 201}
            body = {"model": "x", "files": {"x.gguf": digest}, "stream": False}
            made = httpx.post(f"{program.url}/api/create", json=body, timeout=60)
            before = before or server.memory_info().rss
            if made.status_code != 200:
                assert made.status_code == 400, made.text
                assert "x.gguf: " in made.text
                continue
            taken += 1
            chat = {"model": "x", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
            answer = httpx.post(f"{program.url}/v1/chat/completions", json=chat, timeout=200)
            if metadata == UNHEARD:
                assert (answer.status_code, "unheard" in answer.text) == (400, True), answer.text
            assert answer.status_code == 200 or (answer.status_code == 400 and codes_of(answer)), answer.text
            assert httpx.post(f"{program.url}/api/show", json={"model": "x"}, timeout=60).status_code == 200
        assert server.is_running()
        assert httpx.get(f"{program.url}/api/tags", timeout=60).status_code == 200
        assert server.memory_info().rss < before + (64 << 20)
        assert taken
