"""What is said on the wire: the order of events, why an answer ended, whose form an error has."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from api.conftest import SCRIPT, run_server
from puna.errors import (
    Conflict,
    Forbidden,
    LoadTimeout,
    Overloaded,
    PayloadTooLarge,
    PunaError,
    ServerStopping,
    TooManyRequests,
)
from puna.server.errors import error_body, error_response
from puna.server.streaming import EventStream

from .test_contract import TOOL, called, png, said

VERSION = {"anthropic-version": "2023-06-01"}


def post(server: Any, text: str = "Hi", model: str = "tiny", **fields: Any) -> Any:
    body = {"model": model, "max_tokens": 500, **said(text), **fields}
    return server.post("/v1/messages", body)


def events(answer: Any) -> list[tuple[str, dict[str, Any]]]:
    """(name, data) of each event; comments are none."""
    found = []
    for block in answer.body.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            name, data = lines
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_the_grammar_of_a_stream(server: Any) -> None:
    got = events(post(server, "CALL TWO", "tools", tools=[TOOL], stream=True))
    assert all(name == data["type"] for name, data in got)
    names = [name for name, _ in got]
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    start = got[0][1]["message"]
    assert (start["content"], start["stop_reason"], start["usage"]["output_tokens"]) == ([], None, 0)
    open_block, blocks = None, 0
    for name, data in got[2:-2]:
        if name == "content_block_start":
            assert (open_block, data["index"]) == (None, blocks)
            assert (data["content_block"]["type"], data["content_block"]["input"]) == ("tool_use", {})
            open_block, blocks = blocks, blocks + 1
        else:
            assert data["index"] == open_block
            open_block = None if name == "content_block_stop" else open_block
    assert (open_block, blocks) == (None, 2)
    (_, delta), (last, _) = got[-2:]
    assert (delta["delta"]["stop_reason"], delta["delta"]["stop_sequence"], last) == ("tool_use", None, "message_stop")


def test_a_thought_ends_with_its_signature(server: Any) -> None:
    got = events(post(server, "THINK", "thinker", stream=True))
    deltas = [data["delta"] for name, data in got if name == "content_block_delta" and data["index"] == 0]
    assert "".join(delta["thinking"] for delta in deltas[:-1]) == "Let me see."
    assert deltas[-1]["type"] == "signature_delta"
    assert deltas[-1]["signature"]


def test_an_omitted_thought_is_not_sent(server: Any) -> None:
    got = post(server, "THINK", "thinker", stream=True, thinking={"type": "adaptive", "display": "omitted"})
    assert b"Let" not in got.body
    assert b"signature_delta" in got.body


@pytest.mark.parametrize(
    ("fields", "reason", "stop"),
    [
        ({}, "end_turn", None),
        ({"stop_sequences": ["zzz", "friend"]}, "stop_sequence", "friend"),
        ({"max_tokens": 2}, "max_tokens", None),
    ],
)
def test_why_an_answer_ended(server: Any, fields: dict[str, Any], reason: str, stop: str | None) -> None:
    whole = post(server, **fields).json
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, stop)
    delta = next(data for name, data in events(post(server, stream=True, **fields)) if name == "message_delta")
    assert (delta["delta"]["stop_reason"], delta["delta"]["stop_sequence"]) == (reason, stop)


def test_a_full_context_is_told_from_a_limit(server: Any) -> None:
    """The model would go on for ever; the context has room for some tokens, the limit for more."""
    body = {"model": "tiny", "max_tokens": 4000, "options": {"num_ctx": 256}, **said("FOREVER " + "x" * 210)}
    assert server.post("/v1/messages", body).json["stop_reason"] == "model_context_window_exceeded"


def test_a_call_that_was_cut_has_what_came_of_it(server: Any) -> None:
    whole = post(server, "CALL", "tools", tools=[TOOL]).json["usage"]["output_tokens"]
    cut = post(server, "CALL", "tools", tools=[TOOL], max_tokens=whole - 8).json
    assert cut["stop_reason"] == "max_tokens"
    assert isinstance(cut["content"][-1]["input"], dict)


def test_turns_are_merged_and_results_come_first(server: Any) -> None:
    turns = [
        {"role": "user", "content": "One"},
        {"role": "user", "content": [{"type": "text", "text": "PROMPT two"}]},
        {"role": "assistant", "content": "Three"},
        {"role": "assistant", "content": "Four"},
        {"role": "user", "content": "Five"},
    ]
    text = post(server, messages=turns).json["content"][0]["text"]
    assert text == "user\nOne\nPROMPT two\nassistant\nThree\nFour\nuser\nFive\nassistant\n"
    mixed = called()
    mixed["messages"][2]["content"].insert(0, {"type": "text", "text": "Thanks."})
    shown = json.dumps(post(server, **mixed).json["content"])
    assert shown.index("PROMPT rain") < shown.index("Thanks.")


def test_an_image_in_a_result_follows_it(server: Any) -> None:
    image = {"type": "image", "source": {"type": "base64", "data": png(), "media_type": "image/png"}}
    turns = called(result={"content": [image]}) | {"model": "vision", "tools": []}
    turns["messages"].append({"role": "user", "content": "PROMPT"})
    text = post(server, **turns).json["content"][0]["text"]
    assert text.index("The result is the image that follows.") < text.index("<__media__>")


def test_headers(server: Any) -> None:
    answer = post(server)
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert post(server, model="nope").json["request_id"].startswith("req_")
    assert "request-id" not in server.chat().headers


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_wrong_methods_and_paths_have_the_form_of_the_dialect(server: Any, method: str) -> None:
    answer = server.request(method, "/v1/messages")
    assert (answer.status, answer.json["type"]) == (405, "error")
    missing = server.request(method, "/v1/messages/nothing")
    assert (missing.status, missing.error["type"]) == (404, "not_found_error")
    old = server.request(method, "/v1/complete", headers=VERSION)
    assert (old.status, old.json["type"], old.error["type"]) == (404, "error", "not_found_error")


def test_openais_models_are_as_they_were(server: Any) -> None:
    assert server.get("/v1/models").json["object"] == "list"
    assert server.get("/v1/models/tiny").json["object"] == "model"
    deleted = server.request("DELETE", "/v1/models/nope", headers=VERSION)
    assert (deleted.status, deleted.json["type"]) == (404, "error")


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (PunaError("x"), 500, "api_error"),
        (Forbidden("x"), 403, "permission_error"),
        (Conflict("x"), 409, "invalid_request_error"),
        (PayloadTooLarge("x"), 413, "request_too_large"),
        (TooManyRequests("x"), 429, "rate_limit_error"),
        (Overloaded("x"), 529, "overloaded_error"),
        (ServerStopping(), 529, "overloaded_error"),
        (LoadTimeout("x"), 504, "timeout_error"),
    ],
)
def test_types_of_errors(error: PunaError, status: int, kind: str) -> None:
    assert error_response(error, "/v1/messages").status_code == status
    assert error_body(error, "/v1/models", VERSION, "req_1") == {
        "type": "error",
        "error": {
            "type": kind,
            "message": error.message,
            "details": {"error_code": error.code, "param": None},
        },
        "request_id": "req_1",
    }


def test_silence_is_filled_with_pings(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come before the message as well, while its prompt is read."""
    monkeypatch.setitem(EventStream.__init__.__kwdefaults__, "grace", 0.05)
    monkeypatch.setitem(EventStream.__init__.__kwdefaults__, "silence", 0.05)
    got = [name for name, _ in events(post(server, "SLOW", stream=True))]
    assert got[0] == "ping"
    assert got.index("message_start") >= 1
    assert got[-1] == "message_stop"


WHOLE: dict[str, Any] = {
    **called(),
    "max_tokens": 3,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "5m"}}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "stop_sequences": ["x"],
    "metadata": {"user_id": "me"},
    "stream": False,
    "temperature": 0.5,
    "top_k": 3,
}
STRANGE = (
    None,
    True,
    0,
    -1,
    2**70,
    0.5,
    "",
    "x",
    "\ud800",
    [],
    {},
    [[]],
    [None],
    {"type": "x"},
    {"type": "text"},
    "a" * 5000,
)


def damaged(value: Any, dice: random.Random) -> Any:
    """`value` with something in it replaced, left out or doubled."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        key = dice.choice(sorted(value))
        if dice.random() < 0.2:
            return {name: inner for name, inner in value.items() if name != key}
        return {**value, key: damaged(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.8:
        at = dice.randrange(len(value))
        return [*value[:at], damaged(value[at], dice), *value[at + dice.randrange(2) :]]
    return dice.choice(STRANGE)


PATHS = {
    "/v1/messages": WHOLE,
    "/v1/messages/count_tokens": WHOLE,
    "/v1/messages/batches": {"requests": [{"custom_id": "a", "params": WHOLE}, {"custom_id": "b", "params": WHOLE}]},
}


@pytest.fixture(scope="module")
def battered(settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of its own: batches that were not refused end with it."""
    with run_server(replace(settings, state=tmp_path_factory.mktemp("state")), SCRIPT) as running:
        yield running


@pytest.mark.parametrize("path", PATHS)
def test_five_hundred_damaged_requests_are_no_faults_of_the_server(battered: Any, path: str) -> None:
    dice = random.Random(5)
    seen = set()
    for _ in range(500):
        body: Any = PATHS[path]
        for _ in range(dice.randint(1, 3)):
            body = damaged(body, dice)
        text = json.dumps(body).encode()
        if dice.random() < 0.1:
            at = dice.randrange(len(text))
            text = text[:at] + dice.randbytes(3) + text[at + dice.randrange(3) :]
        answer = battered.post(path, text)
        seen.add(answer.status)
        assert answer.status < 500, (text, answer.body)
        assert answer.status == 200 or answer.json["type"] == "error"
    assert {200, 400} <= seen
