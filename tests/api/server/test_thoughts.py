"""A running answer's thought is ended by a further request, in every dialect alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from api.conftest import run_server

SCRIPT = {
    "rules": [
        {"when": {"contains": "</think>"}, "answer": {"text": "Forty-two."}},
        {"when": {"contains": "PONDER"}, "answer": {"thinking": "on and on ", "repeat": True, "delay": 0.005}},
    ],
    "default": {"text": "on and ", "repeat": True, "delay": 0.005},
}
ASKS = {"model": "thinker", "stream": True, "messages": [{"role": "user", "content": "PONDER"}]}


@pytest.fixture(scope="module")
def ponderer(settings: Any) -> Iterator[Any]:
    with run_server(settings, SCRIPT) as running:
        yield running


DIALECTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {},
    "/v1/responses": {"messages": None, "input": "PONDER"},
    "/v1/messages": {"max_tokens": 4000},
    "/api/chat": {},
}


@pytest.mark.parametrize("path", DIALECTS)
def test_the_thought_ends_and_the_answer_goes_on(ponderer: Any, path: str) -> None:
    with ponderer.open("POST", path, ASKS | DIALECTS[path]) as stream:
        id_ = stream.getheader("x-request-id")
        lines = iter(stream.readline, b"")
        seen = next(line for line in lines if b"on and on" in line or b"and" in line)
        ended = ponderer.post(f"/v1/requests/{id_}/end_thinking")
        assert (ended.status, ended.json) == (200, {"id": id_, "object": "request.thinking_ended"})
        rest = b"".join(lines).decode()
    assert b"thinking" in seen or b"reasoning" in seen
    assert "Forty" in rest
    gone = ponderer.post(f"/v1/requests/{id_}/end_thinking")
    assert (gone.status, gone.error["code"], gone.error["param"]) == (404, "not_found", "id")


def test_an_answer_that_does_not_think(ponderer: Any) -> None:
    asks = {**ASKS, "messages": [{"role": "user", "content": "Hi"}]}
    with ponderer.open("POST", "/v1/chat/completions", asks) as stream:
        next(line for line in iter(stream.readline, b"") if b"and" in line)
        answer = ponderer.post(f"/v1/requests/{stream.getheader('x-request-id')}/end_thinking")
    assert (answer.status, answer.error["code"]) == (409, "conflict")


def test_a_thought_is_ended_by_the_key_that_asked(serving: Any) -> None:
    with serving(SCRIPT, api_keys=("mine", "yours")) as own:
        mine, yours = ({"authorization": f"Bearer {key}"} for key in ("mine", "yours"))
        with own.open("POST", "/v1/chat/completions", ASKS, headers=mine) as stream:
            next(line for line in iter(stream.readline, b"") if b"and" in line)
            path = f"/v1/requests/{stream.getheader('x-request-id')}/end_thinking"
            assert [own.post(path, headers=key).status for key in (yours, mine)] == [404, 200]


def test_the_native_budget(ponderer: Any) -> None:
    asks = {**ASKS, "stream": False, "think_budget": 4}
    told = ponderer.post("/api/chat", asks).json["message"]
    assert (told["thinking"], told["content"]) == ("on and on", "Forty-two.")
    generated = ponderer.post("/api/generate", {"prompt": "PONDER", **asks}).json
    assert (generated["thinking"], generated["response"]) == ("on and on", "Forty-two.")


def test_two_names_of_a_budget_must_agree(ponderer: Any) -> None:
    asks = {**ASKS, "stream": False, "reasoning_budget_tokens": 4}
    assert ponderer.post("/v1/chat/completions", asks | {"reasoning": {"max_tokens": 4}}).status == 200
    answer = ponderer.post("/v1/chat/completions", asks | {"reasoning": {"max_tokens": 5}})
    assert (answer.status, answer.error["param"]) == (400, "reasoning.max_tokens")
    assert json.loads(answer.body)["error"]["code"] == "invalid_value"
