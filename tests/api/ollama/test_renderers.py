"""Models whose config names a renderer and a parser of Ollama's: what makes their prompts, and how that is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.gguf_files import CHATML, write_tiny_llama
from fakes.stores import put_model


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("published")
    jinja = write_tiny_llama(models / "jinja.gguf", chat_template=CHATML).read_bytes()
    none = write_tiny_llama(models / "none.gguf", chat_template=None).read_bytes()
    config = {"model_format": "gguf", "model_family": "llama", "renderer": "glm-4.7", "parser": "glm-4.7"}
    plain = {"template": b"{{ .Prompt }}"}
    put_model(models, "new/latest", jinja, plain, config=config | {"capabilities": ["completion", "thinking"]})
    put_model(models, "lost/latest", none, plain, config=config)
    put_model(models, "parsed/latest", none, {}, config={"parser": "glm-4.7"})
    put_model(models, "go/latest", none, {"template": b"Q: {{ .Prompt }}"}, config={"parser": "qwen3"})
    return models


@pytest.fixture
def own(serving: Any, published: Path) -> Iterator[Any]:
    with serving(models=published) as server:
        yield server


def chat(server: Any, model: str) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": "PROMPT"}], "stream": False}
    return server.post("/api/chat", body)


def test_the_files_own_template_makes_the_prompts_and_is_shown(own: Any) -> None:
    answer = chat(own, "new")
    assert answer.json["message"]["content"] == "user\nPROMPT\nassistant\n"
    card = own.post("/api/show", {"model": "new"}).json
    assert (card["renderer"], card["parser"], card["template"]) == ("glm-4.7", "glm-4.7", CHATML)
    assert card["rendered_by"] == "the file's own chat template, in place of Ollama's renderer 'glm-4.7'"
    assert "thinking" in card["capabilities"]


@pytest.mark.parametrize("model", ["lost", "parsed"])
def test_without_one_a_chat_is_refused_with_the_reason(own: Any, model: str) -> None:
    for answer in (
        chat(own, model),
        own.post("/api/generate", {"model": model, "prompt": "PROMPT", "stream": False}),
        own.chat("PROMPT", model=model),
    ):
        assert answer.status == 400
        assert "'glm-4.7', a part of Ollama's program, and its file has no chat template" in answer.body.decode()
    card = own.post("/api/show", {"model": model}).json
    assert "a part of Ollama's program" in card["rendered_by"]
    assert card["template"] == ""


def test_raw_prompts_and_a_callers_own_template_need_none(own: Any) -> None:
    raw = own.post("/api/generate", {"model": "lost", "prompt": "PROMPT", "raw": True, "stream": False})
    assert raw.json["response"] == "PROMPT"
    given = {"model": "lost", "prompt": "PROMPT", "template": "A: {{ .Prompt }}", "stream": False}
    assert own.post("/api/generate", given).json["response"] == "A: PROMPT"
    assert own.post("/v1/completions", {"model": "lost", "prompt": "PROMPT"}).json["choices"][0]["text"] == "PROMPT"


def test_a_go_template_beside_a_parser_alone_makes_the_prompts(own: Any) -> None:
    assert chat(own, "go").json["message"]["content"] == "Q: PROMPT"
    assert "rendered_by" not in own.post("/api/show", {"model": "go"}).json
