"""Streams over real connections: comments while nothing comes, work that stops when the client goes."""

from __future__ import annotations

import json
import threading
from http.client import HTTPConnection

import pytest

from fakes.waiting import until


def wait_idle(server) -> None:
    """The answer itself would go on for twice as long."""
    until(lambda: not server.busy(), 20, "no slot to work")


def body(text: str, **fields: object) -> dict[str, object]:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], **fields}


def test_a_client_that_goes_away_in_a_stream_frees_its_slot(server):
    with server.open("POST", "/v1/chat/completions", body("FOREVER", stream=True)) as response:
        assert response.readline().startswith(b"data: ")
        assert server.busy() == 1
    wait_idle(server)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_client_that_goes_away_while_it_waits_frees_its_slot(server, path):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    data = body("FOREVER") if "chat" in path else {"model": "tiny", "prompt": "FOREVER", "max_tokens": 4000}
    connection.request("POST", path, json.dumps(data).encode())
    until(server.busy, 30, "the request to be at work")
    connection.close()
    wait_idle(server)


def test_many_streams_at_once(server):
    texts: list[str] = []

    def one() -> None:
        chunks = server.chat("Hi", stream=True).chunks
        texts.append("".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"]))

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == ["Hello there, friend."] * 16
