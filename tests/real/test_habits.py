"""What a request asks too much of, or says in another word, on a real model and both engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes.gguf_files import write_tiny_llama
from puna.model.digest import Digest

from .conftest import Program

TRAINED = 8192
"""Of smollm2."""

QUESTION = [{"role": "user", "content": "Say hi."}]

ONE_ONLY = (
    "{% if messages | length > 1 %}{{ raise_exception('one message only') }}{% endif %}"
    "<|im_start|>user\n{{ messages[0].content }}<|im_end|>\n<|im_start|>assistant\n"
)
"""Refuses what llama.cpp tries at a load."""


def post(program: Program, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{program.url}{path}", json=body, timeout=120)


def test_a_context_beyond_the_trained_one_is_cut_and_told(program: Program) -> None:
    options = {"num_ctx": 131072, "num_predict": 4}
    asked = post(program, "/api/chat", model="smollm2", messages=QUESTION, stream=False, options=options)
    assert asked.status_code == 200, asked.text
    assert asked.headers["x-puna-ignored"] == "options.num_ctx"
    made = post(
        program, "/api/create", model="wide", **{"from": "smollm2"}, parameters={"num_ctx": 131072}, stream=False
    )
    assert made.status_code == 200, made.text
    stored = post(program, "/v1/chat/completions", model="wide", messages=QUESTION, max_tokens=4)
    assert stored.status_code == 200, stored.text
    assert stored.headers["x-puna-ignored-parameters"] == "num_ctx"
    listed = httpx.get(f"{program.url}/v1/models/wide").json()
    assert (listed["context_length"], listed["trained_context_length"]) == (TRAINED, TRAINED)


def test_no_limit_and_every_token(program: Program) -> None:
    answer = post(
        program, "/v1/chat/completions", model="smollm2", messages=QUESTION, max_tokens=-1, top_k=-1, temperature=0
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("prompt", [{}, {"prompt": None}])
def test_no_prompt_begins_a_document(program: Program, prompt: dict[str, None]) -> None:
    answer = post(program, "/v1/completions", model="smollm2", max_tokens=4, temperature=0, **prompt)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] == 1


def test_a_template_that_llama_cpp_refuses_serves(program: Program, tmp_path: Path) -> None:
    data = write_tiny_llama(tmp_path / "tiny.gguf", chat_template=ONE_ONLY, head=32).read_bytes()
    digest = str(Digest.of(data))
    httpx.post(f"{program.url}/api/blobs/{digest}", content=data)
    made = post(program, "/api/create", model="foreign", files={"tiny.gguf": digest}, stream=False)
    assert made.status_code == 200, made.text
    answer = post(program, "/api/chat", model="foreign", messages=QUESTION, stream=False, options={"num_predict": 3})
    assert answer.status_code == 200, answer.text


def test_a_go_template_of_json(program: Program) -> None:
    template = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ json . }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
    made = post(program, "/api/create", model="speller", **{"from": "smollm2"}, template=template, stream=False)
    assert made.status_code == 200, made.text
    prompt = '<|im_start|>user\n{"role":"user","content":"Say hi."}<|im_end|>\n<|im_start|>assistant\n'
    counted = post(program, "/tokenize", model="smollm2", content=prompt).json()["tokens"]
    answer = post(program, "/api/chat", model="speller", messages=QUESTION, stream=False, options={"num_predict": 2})
    assert answer.json()["prompt_eval_count"] == len(counted)


def test_a_fraction_is_cut_and_told(program: Program) -> None:
    answer = post(
        program,
        "/api/generate",
        model="smollm2",
        prompt="Count:",
        stream=False,
        options={"num_predict": 2.7, "seed": 1.5},
    )
    assert json.loads(answer.text)["eval_count"] == 2
    assert answer.headers["x-puna-ignored"] == "options.num_predict, options.seed"


def test_what_a_model_computes_wrong_is_an_error_with_a_code(program: Program, tmp_path: Path) -> None:
    data = write_tiny_llama(tmp_path / "broken.gguf", norm=float("nan"), head=32).read_bytes()
    digest = str(Digest.of(data))
    httpx.post(f"{program.url}/api/blobs/{digest}", content=data)
    assert post(program, "/api/create", model="broken", files={"broken.gguf": digest}, stream=False).status_code == 200
    asked = {"messages": QUESTION, "logprobs": True, "top_logprobs": 1, "max_tokens": 2}
    codes = {"engine_error", "model_load_failed", "invalid_model_file"}
    for path, body, more in (
        ("/v1/chat/completions", asked, set()),
        ("/v1/embeddings", {"input": "a"}, {"unsupported_value"}),  # of an engine that does not embed
    ):
        answer = post(program, path, model="broken", **body)
        assert answer.status_code >= 400
        assert answer.json()["error"]["code"] in codes | more
    assert post(program, "/api/embed", model="broken", input="a").json()["error"]
