"""The `@anthropic-ai/sdk` package for JavaScript, under Node."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.node import Node
from fakes.waiting import until


@pytest.fixture(scope="module")
def seen(server: Any, node: Node) -> dict[str, Any]:
    """What `tests/node/anthropic.mjs` saw."""
    found: dict[str, Any] = node.run("anthropic.mjs", server.url)
    return found


def test_a_message(seen: dict[str, Any]) -> None:
    assert seen["message"] == {
        "content": [{"type": "text", "text": "Hello there, friend.", "citations": None}],
        "stop_reason": "end_turn",
        "tokens": 5,
        "id": True,
    }


def test_events(seen: dict[str, Any]) -> None:
    names = seen["events"]
    assert names[0] == "message_start"
    assert names[-2:] == ["message_delta", "message_stop"]
    assert names.count("content_block_start") == names.count("content_block_stop") == 2


def test_a_stream_accumulates(seen: dict[str, Any]) -> None:
    heard, (thought, text) = seen["stream"]["heard"], seen["stream"]["final"]
    assert (heard["text"], heard["thinking"]) == (text["text"], thought["thinking"]) == ("Forty-two.", "Let me see.")
    assert heard["signature"] == thought["signature"] != ""


def test_calls(seen: dict[str, Any]) -> None:
    assert seen["calls"]["stop_reason"] == "tool_use"
    assert [call["input"] for call in seen["calls"]["calls"]] == [{"city": "Paris"}, {"city": "Oslo"}]
    assert seen["loop"] == {"text": "It is sunny.", "asked": ["Paris"]}


def test_counts_and_models(seen: dict[str, Any]) -> None:
    assert seen["counted"] == {"input_tokens": 21}
    assert {"tiny:latest", "vision:latest"} <= set(seen["models"]["ids"])
    assert seen["models"]["one"] == "model"


def test_a_batch(seen: dict[str, Any]) -> None:
    assert seen["batch"]["counts"] == {"processing": 0, "succeeded": 1, "errored": 0, "canceled": 0, "expired": 0}
    assert (seen["batch"]["texts"], seen["batch"]["deleted"]) == (["Hello there, friend."], "message_batch_deleted")


def test_errors(seen: dict[str, Any], server: Any) -> None:
    missing, invalid = seen["missing"], seen["invalid"]
    assert (missing["class"], missing["status"], missing["type"]) == ("NotFoundError", 404, "not_found_error")
    assert missing["id"].startswith("req_")
    assert (invalid["class"], invalid["status"]) == ("BadRequestError", 400)
    assert seen["broken"]["type"] == "api_error"
    assert seen["abort"] == "APIUserAbortError"
    until(lambda: server.busy() == 0, 10, "the end of what was aborted")
