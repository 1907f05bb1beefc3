"""Files, uploads and batches by the `openai` package for JavaScript, under Node."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.node import Node


@pytest.fixture(scope="module")
def seen(server: Any, node: Node) -> dict[str, Any]:
    """What `tests/node/files.mjs` saw."""
    found: dict[str, Any] = node.run("files.mjs", server.url)
    return found


def test_a_file(seen):
    found = seen["file"]
    assert (found["file"]["filename"], found["file"]["bytes"]) == ("näme.txt", 9)
    assert found["file"]["expires_at"] == found["file"]["created_at"] + 3600
    assert (found["waited"], found["content"], found["deleted"]) == ("processed", "some text", True)
    assert found["gone"] == {"class": "NotFoundError", "status": 404, "param": "id"}


def test_pages_both_ways(seen):
    pages = seen["pages"]
    assert (pages["down"], pages["up"]) == (pages["made"][::-1], pages["made"])


def test_an_upload(seen):
    assert seen["upload"] == {"status": "completed", "content": "abcdef", "cancelled": "cancelled"}


def test_a_batch(seen):
    counts = {"total": 5, "completed": 5, "failed": 0}
    assert seen["batch"] == {"status": "completed", "counts": counts, "ids": list("01234"), "listed": True}


def test_a_batch_that_is_cancelled(seen):
    assert seen["cancelled"]["at_once"] in {"cancelling", "cancelled"}
    assert seen["cancelled"]["status"] == "cancelled"
