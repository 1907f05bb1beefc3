"""`/api/unload`."""

from __future__ import annotations

import json


def loaded(server) -> list[str]:
    return [model["name"] for model in json.loads(server.get("/api/ps").body)["models"]]


def unload(server, status: int = 200, **body) -> list[str]:
    answer = server.post("/api/unload", json.dumps(body).encode())
    assert answer.status == status, answer.body
    return json.loads(answer.body).get("unloaded", [])


def ask(server, model: str) -> None:
    body = {"model": model, "prompt": "Hi", "stream": False}
    assert server.post("/api/generate", json.dumps(body).encode()).status == 200


def test_a_model_is_unloaded_by_its_name(server):
    ask(server, "tiny")
    assert unload(server, model="tiny") == ["tiny:latest"]
    assert "tiny:latest" not in loaded(server)
    assert unload(server, model="tiny") == []
    unload(server, 404, model="nobody")


def test_all_are_unloaded_where_that_is_said(server):
    ask(server, "tiny")
    unload(server, 400)
    unload(server, 400, modle="tiny")
    unload(server, 400, all=True, model="tiny")
    assert "tiny:latest" in loaded(server)
    assert "tiny:latest" in unload(server, all=True)
    assert loaded(server) == []
