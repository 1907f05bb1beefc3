"""The `openai` package for JavaScript on responses and conversations, under Node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.node import Node


@pytest.fixture(scope="module")
def seen(server: Any, node: Node) -> dict[str, Any]:
    """What `tests/node/responses.mjs` saw."""
    found: dict[str, Any] = node.run("responses.mjs", server.url)
    return found


def test_create_and_stream(seen):
    assert seen["create"] == ["Hello there, friend.", "completed"]
    assert seen["stream"] == "Hello there, friend."


def test_calls_accumulate(seen):
    assert [(kind, json.loads(arguments)["city"]) for kind, arguments in seen["accumulated"]] == [
        ("function_call", "Paris"),
        ("function_call", "Oslo"),
    ]


def test_structured_output(seen):
    assert seen["parsed"] == {"ok": True}


def test_the_tool_loop(seen):
    assert seen["loop"] == "It is sunny."


def test_stored_responses(seen):
    assert (seen["stored"]["same"], seen["stored"]["items"]) == (True, ["0", "1", "2"])
    assert seen["stored"]["gone"]["class"] == "NotFoundError"


def test_the_background(seen):
    assert seen["background"] == ["queued", 3, "response.completed", "cancelled"]


def test_counting_and_compacting(seen):
    assert seen["counted"] == [21, ["compaction"]]


def test_conversations(seen):
    assert seen["conversation"] == {
        "knows": True,
        "roles": ["user", "user", "assistant", "user"],
        "same": True,
        "metadata": {"c": "d"},
        "deleted": True,
    }


def test_errors_by_class(seen):
    assert seen["errors"]["missing"]["code"] == "model_not_found"
    assert seen["errors"]["previous"] == {
        "class": "BadRequestError",
        "status": 400,
        "code": "previous_response_not_found",
        "param": "previous_response_id",
    }
