"""The `openai` package for JavaScript, under Node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.node import Node


@pytest.fixture(scope="module")
def seen(server: Any, node: Node) -> dict[str, Any]:
    """What `tests/node/client.mjs` saw."""
    found: dict[str, Any] = node.run("client.mjs", server.url)
    return found


def test_chat(seen):
    assert seen["chat"]["text"] == "Hello there, friend."
    assert seen["chat"]["id"].startswith("req_")
    assert seen["chat"]["seed"] == "exact"


def test_stream(seen):
    assert seen["stream"] == "Hello there, friend."


def test_ten_choices_accumulate(seen):
    assert seen["accumulated"] == {"texts": ["Hello there, friend."] * 10, "usage": 50}


def test_tool_calls_accumulate(seen):
    assert seen["calls"]["reason"] == "tool_calls"
    assert [(call["name"], json.loads(call["arguments"])) for call in seen["calls"]["calls"]] == [
        ("get_weather", {"city": "Paris"}),
        ("get_weather", {"city": "Oslo"}),
    ]


def test_the_tool_loop_ends_with_an_answer(seen):
    assert seen["loop"] == {"text": "It is sunny.", "asked": ["Paris"]}


def test_structured_output(seen):
    assert seen["parsed"] == {"ok": True}


def test_abort_frees_the_slot(seen, server):
    assert seen["abort"] == "aborted"
    assert server.busy() == 0


def test_completion(seen):
    assert seen["completion"] == ["Hello there", "Hello there"]


def test_embeddings_are_asked_for_as_base64(seen):
    assert seen["embeddings"] is True


def test_stored_chats_in_pages_both_ways(seen):
    stored = seen["stored"]
    assert (stored["forwards"], stored["backwards"]) == (True, True)
    assert (stored["messages"], stored["changed"], stored["left"]) == (["number 0"], {"made": "anew"}, [])
    assert (stored["gone"]["class"], stored["gone"]["param"]) == ("NotFoundError", "completion_id")


def test_decisions(seen):
    assert seen["decision"] == [
        {"type": "predicate", "name": "sure", "of": None},
        {"type": "choice", "name": None, "of": 2},
    ]


def test_transcriptions(seen):
    assert seen["transcription"] == ["Hello there, friend."] * 2


def test_models(seen):
    assert "tiny:latest" in seen["models"]["ids"]
    assert seen["models"]["one"] == "tiny"


def test_errors_by_class(seen):
    assert seen["errors"]["missing"]["class"] == "NotFoundError"
    assert seen["errors"]["missing"]["code"] == "model_not_found"
    assert seen["errors"]["bad"] == {
        "class": "BadRequestError",
        "status": 400,
        "code": "decimal_above_max_value",
        "param": "temperature",
    }
