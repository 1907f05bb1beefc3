"""The `ollama` package for JavaScript, unchanged, under Node."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.node import Node
from fakes.waiting import until


@pytest.fixture(scope="module")
def seen(server: Any, node: Node) -> dict[str, Any]:
    """What `tests/node/ollama.mjs` saw."""
    found: dict[str, Any] = node.run("ollama.mjs", server.url)
    return found


def test_answers(seen: dict[str, Any]) -> None:
    assert seen["chat"] == {"text": "Hello there, friend.", "reason": "stop"}
    assert seen["stream"] == seen["generate"] == "Hello there, friend."
    assert seen["thinking"] == ["Let me see.", "Forty-two."]
    assert seen["tools"] == ["Paris", "Oslo"]
    assert seen["embed"] == [4, 4]


def test_models(seen: dict[str, Any]) -> None:
    assert "tiny:latest" in seen["models"]
    assert seen["show"] == "llama"
    assert seen["ps"] is True
    assert seen["version"] == "0.33.0"


def test_abort_frees_the_slot(seen: dict[str, Any], server: Any) -> None:
    assert seen["abort"] == "AbortError"
    until(lambda: server.busy() == 0, 30, "the slot to be free")


def test_errors(seen: dict[str, Any]) -> None:
    errors = seen["errors"]
    assert errors["missing"]["status"] == 404
    assert errors["missing"]["message"].startswith("model 'nope' not found")
    assert "nope-nope" in errors["pull"]["message"]
    assert "scripted death" in errors["late"]["message"]
