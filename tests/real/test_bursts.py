"""A hundred requests at once do not keep one waiting whose answer takes no time."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from fakes.waiting import until

from .conftest import SHALLOW, Program, serve

MANY = 100

BODIES = {
    "/api/show": {"model": SHALLOW},
    "/api/pull": {"model": "127.0.0.1:9/nobody/nothing", "stream": False},
    "/api/estimate": {"model": SHALLOW},
    "/v1/chat/completions": {"model": "nobody/nothing", "messages": [{"role": "user", "content": "Hi"}] * 100},
}


@pytest.fixture(scope="module")
def quiet(shallow_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with serve(shallow_store, tmp_path_factory.mktemp("bursts") / "log", PUNA_ENGINE="cpu") as running:
        yield running


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
@pytest.mark.parametrize("apart", [False, True], ids=["with-head", "body-later"])
@pytest.mark.parametrize("path", BODIES)
def test_a_burst_is_not_waited_for(quiet, path, apart):
    """All of it lies in the server's sockets, which is stopped meanwhile, before the quick one comes."""
    before = len(order(quiet))
    body = json.dumps(BODIES[path]).encode()
    fields = f"Host: localhost\r\nContent-Length: {len(body)}\r\nConnection: close"
    head = f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode()
    server = psutil.Process(quiet.process.pid)
    with ExitStack() as stack:
        server.suspend()
        stack.callback(server.resume)
        burst = [stack.enter_context(socket.create_connection(("127.0.0.1", quiet.port), 60)) for _ in range(MANY)]
        for one in burst:
            one.sendall(head if apart else head + body)
        if apart:
            server.resume()
            until(lambda: taken(quiet) >= MANY, 30, "the connections to be taken")
            server.suspend()
            for one in burst:
                one.sendall(body)
        quick = stack.enter_context(socket.create_connection(("127.0.0.1", quiet.port), 60))
        quick.sendall(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        server.resume()
        for one in (quick, *burst):
            assert one.recv(12).startswith(b"HTTP/1.1 "), "an answer"
            while one.recv(65536):
                pass
    until(lambda: len(order(quiet)) - before == MANY + 1, 30, "all answers to be in the log")
    assert order(quiet)[before:].index("/api/version") <= MANY // 3


def taken(program: Program) -> int:
    return sum(one.status == "ESTABLISHED" for one in psutil.Process(program.process.pid).net_connections("tcp"))


def order(program: Program) -> list[str]:
    """The paths of answered requests, as the log has them."""
    lines = program.log.read_text().splitlines()
    return [word.removeprefix("path=") for line in lines for word in line.split() if word.startswith("path=")]
