"""NAME@sha256:… is that manifest and no other, wherever a name is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.gguf_files import CHATML, gguf_bytes
from fakes.stores import put_model
from puna.model.digest import Digest

OTHER = "sha256:" + "0" * 64


@pytest.fixture
def pinned(serving: Callable[..., Any], tmp_path: Path) -> Iterator[tuple[Any, str]]:
    """A server, and the digest of its one model `some:1`."""
    path = put_model(tmp_path / "models", "some/1", gguf_bytes(chat_template=CHATML))
    with serving(models=tmp_path / "models") as server:
        yield server, str(Digest.of(path.read_bytes()))


MESSAGES = [{"role": "user", "content": "hi"}]

PLACES: list[tuple[str, str, Callable[[str], Any]]] = [
    ("POST", "/v1/chat/completions", lambda name: {"model": name, "messages": MESSAGES}),
    ("POST", "/v1/completions", lambda name: {"model": name, "prompt": "hi"}),
    ("POST", "/v1/embeddings", lambda name: {"model": name, "input": "hi"}),
    ("POST", "/tokenize", lambda name: {"model": name, "prompt": "hi"}),
    ("POST", "/detokenize", lambda name: {"model": name, "tokens": [65]}),
    ("POST", "/api/chat", lambda name: {"model": name, "messages": MESSAGES, "stream": False}),
    ("POST", "/api/chat", lambda name: {"model": name, "messages": MESSAGES}),
    ("POST", "/api/generate", lambda name: {"model": name, "prompt": "hi", "stream": False}),
    ("POST", "/api/generate", lambda name: {"model": name, "keep_alive": 0}),
    ("POST", "/api/embed", lambda name: {"model": name, "input": "hi"}),
    ("POST", "/api/show", lambda name: {"model": name}),
    ("POST", "/api/copy", lambda name: {"source": name, "destination": "copied"}),
    ("DELETE", "/api/delete", lambda name: {"model": name}),
]


@pytest.mark.parametrize(("method", "path", "body"), PLACES)
def test_that_manifest_and_no_other(
    pinned: tuple[Any, str], method: str, path: str, body: Callable[[str], Any]
) -> None:
    server, digest = pinned
    refused = server.request(method, path, body(f"some:1@{OTHER}"))
    assert refused.status == 404, refused.body
    assert f"(under that name is {digest})" in refused.body.decode()
    assert [model["id"] for model in server.get("/v1/models").json["data"]] == ["some:1"]
    answer = server.request(method, path, body(f"some:1@{digest}"))
    assert answer.status == 200, answer.body


def test_of_openai(pinned: tuple[Any, str]) -> None:
    server, digest = pinned
    assert server.get(f"/v1/models/some:1@{OTHER}").status == 404
    assert server.get(f"/v1/models/some:1@{digest}").status == 200
    assert server.request("DELETE", f"/v1/models/some:1@{OTHER}").error["code"] == "model_not_found"
    assert server.request("DELETE", f"/v1/models/some:1@{digest}").status == 200
    assert server.get("/v1/models").json["data"] == []


@pytest.mark.parametrize("end", ["", "sha256:12", "latest"])
def test_a_digest_that_is_none(pinned: tuple[Any, str], end: str) -> None:
    answer = pinned[0].post("/v1/chat/completions", {"model": f"some:1@{end}", "messages": MESSAGES})
    assert (answer.status, answer.error["code"]) == (400, "invalid_model_name")
