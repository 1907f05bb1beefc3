"""Names that are not in the store: answered by the same model under another name, or with what may be meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.gguf_files import CHATML, gguf_bytes
from fakes.stores import put_model
from puna.model.digest import Digest
from puna.sources.packages import catalogue

WEIGHTS = gguf_bytes(chat_template=CHATML, metadata={"llama.context_length": 4096})


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch, serving: Callable[..., Any], tmp_path: Path) -> Any:
    """A server whose store has one of the two names of an entry."""
    entry = replace(catalogue.SMOLLM2_135M, weights=Digest.of(WEIGHTS), names=("twin:latest", "twin:1b"), stop=("END",))
    monkeypatch.setattr(catalogue, "CATALOGUE", dict.fromkeys(entry.names, entry))
    put_model(tmp_path / "models", "twin/1b", WEIGHTS, {"params": b'{"stop":["END"]}'})
    with serving(models=tmp_path / "models") as server:
        yield server


def test_every_question_to_the_short_name_is_answered(twins: Any) -> None:
    question = {"model": "twin", "messages": [{"role": "user", "content": "hi"}], "stream": False}
    for path in ("/v1/chat/completions", "/api/chat"):
        answer = twins.post(path, question)
        assert (answer.status, answer.json["model"]) == (200, "twin"), answer.body
    assert twins.post("/v1/completions", {"model": "twin", "prompt": "hi"}).status == 200
    assert twins.post("/api/generate", {"model": "twin", "prompt": "hi", "stream": False}).status == 200
    assert twins.post("/api/embed", {"model": "twin", "input": "hi"}).status == 200
    assert twins.post("/tokenize", {"model": "twin", "prompt": "hi"}).status == 200
    assert twins.get("/v1/models/twin").status == 200
    assert "FROM twin:1b" in twins.post("/api/show", {"model": "twin"}).json["modelfile"]
    assert {model["name"] for model in twins.get("/api/ps").json["models"]} == {"twin:1b"}
    assert (
        twins.post("/api/generate", {"model": "twin", "keep_alive": 0, "stream": False}).json["done_reason"] == "unload"
    )
    assert [model["name"] for model in twins.get("/api/tags").json["models"]] == ["twin:1b"]


def test_the_name_it_stands_in_for_is_not_removed_with_it(twins: Any) -> None:
    for method, path, body in (("DELETE", "/v1/models/twin", None), ("DELETE", "/api/delete", {"model": "twin"})):
        answer = twins.request(method, path, body)
        assert answer.status == 404
        assert "(did you mean 'twin:1b'?)" in answer.body.decode()
    assert twins.post("/api/copy", {"source": "twin", "destination": "x"}).status == 404
    assert [model["name"] for model in twins.get("/api/tags").json["models"]] == ["twin:1b"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": "tinny", "messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"model": "tinny", "prompt": "hi"}),
        ("/v1/embeddings", {"model": "tinny", "input": "hi"}),
        ("/api/chat", {"model": "tinny", "messages": [{"role": "user", "content": "hi"}]}),
        ("/api/generate", {"model": "tinny", "prompt": "hi"}),
        ("/api/embed", {"model": "tinny", "input": "hi"}),
        ("/api/show", {"model": "tinny"}),
        ("/api/copy", {"source": "tinny", "destination": "x"}),
    ],
)
def test_what_may_be_meant_is_told(server: Any, path: str, body: dict[str, Any]) -> None:
    answer = server.post(path, body)
    text = answer.json["error"]["message"] if path.startswith("/v1") else answer.json["error"]
    assert answer.status == 404
    assert "not found" in text
    assert "(did you mean 'tiny:latest'?)" in text
