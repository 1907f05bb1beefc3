"""Requests over real sockets: proxies, bodies, and ends that come too early."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from puna.client.direct import DirectTransport, without_loop
from puna.client.roundtrip import Body, Broken, NotConnected, TooSlow
from puna.client.threaded import ThreadedTransport
from puna.client.transport import Transport
from puna.settings import Address, parse_address

Kind = type[ThreadedTransport] | type[DirectTransport]


@pytest.fixture(params=[ThreadedTransport, DirectTransport])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


class Said:
    """What a server was sent, and what it answers with, once a connection."""

    def __init__(self, port: int, seen: list[bytes]) -> None:
        self.port = port
        self.seen = seen

    def text(self) -> str:
        return b"".join(self.seen).decode()


@contextmanager
def answering(*answers: bytes, until: bytes = b"\r\n\r\n") -> Iterator[Said]:
    """A server that reads up to `until` and then sends one answer after the other, each after such a reading."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for answer in answers:
                    data = b""
                    while until not in data:
                        data += connection.recv(65536)
                    seen.append(data)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Said(listener.getsockname()[1], seen)
        thread.join(10)


OK = b"HTTP/1.1 200 OK\r\nx-Some: thing\r\ncontent-length: 2\r\n\r\nhi"


async def read(transport: Transport, *arguments: object, **options: object) -> tuple[int, dict[str, str], bytes]:
    async with transport.request(*arguments, **options) as response:  # type: ignore[arg-type]
        return response.status, dict(response.headers), await response.read()


async def test_a_request_and_its_answer(kind: Kind) -> None:
    with answering(OK, until=b"body") as server:
        transport = kind(Address("127.0.0.1", server.port, path="/under"), proxied=False)
        answer = await read(transport, "POST", "/x", {"x-a": "ä"}, Body.of(b"body"))
    assert answer == (200, {"x-some": "thing", "content-length": "2"}, b"hi")
    assert server.seen[0].startswith(b"POST /under/x HTTP/1.1\r\n")
    assert b"x-a: \xc3\xa4\r\n" in server.seen[0]
    assert b"content-length: 4\r\n" in server.seen[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
async def test_an_answer_that_is_none_is_broken(kind: Kind, answer: bytes) -> None:
    with answering(answer) as server, pytest.raises(Broken):
        await read(kind(Address("127.0.0.1", server.port), proxied=False), "GET", "/", {})


async def test_no_connection_is_told_apart(kind: Kind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NotConnected) as caught:
        await read(kind(Address("127.0.0.1", port), proxied=False), "GET", "/", {})
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_silence_ends_when_its_time_is_over(kind: Kind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = kind(Address("127.0.0.1", listener.getsockname()[1]), proxied=False)
        with pytest.raises(TooSlow):
            await read(transport, "GET", "/", {}, seconds=0.2)


async def test_a_proxy_is_asked_for_servers_elsewhere(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with answering(OK) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:pass%20word@127.0.0.1:{proxy.port}")
        transport = kind(parse_address("http://models.example:8000"), proxied=True)
        assert (await read(transport, "GET", "/api/tags", {}))[2] == b"hi"
    assert proxy.text().startswith("GET http://models.example:8000/api/tags HTTP/1.1\r\n")
    assert "proxy-authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n" in proxy.text()


async def test_a_proxy_is_tunnelled_through_for_tls(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with answering(b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}")
        with pytest.raises(NotConnected):
            await read(kind(parse_address("https://models.example"), proxied=True), "GET", "/", {})
    assert proxy.text().startswith("CONNECT models.example:443 HTTP/1.")


async def test_no_proxy_is_heeded(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with answering(OK) as server:
        assert (await read(kind(Address("127.0.0.1", server.port), proxied=True), "GET", "/", {}))[0] == 200


def test_what_waits_for_nothing_needs_no_loop() -> None:
    with answering(OK) as server:
        transport = DirectTransport(Address("127.0.0.1", server.port), proxied=False)
        assert without_loop(read(transport, "GET", "/", {}))[2] == b"hi"
    with pytest.raises(RuntimeError, match="waits for an event loop"):
        without_loop(asyncio.sleep(0))


async def test_a_body_that_comes_too_slowly(kind: Kind) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfew"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(head)
                connection.recv(65536)
                connection.recv(65536)

        threading.Thread(target=serve, daemon=True).start()
        transport = kind(Address("127.0.0.1", listener.getsockname()[1]), proxied=False)
        async with transport.request("GET", "/", {}) as response:
            with pytest.raises(TooSlow):
                await response.read(seconds=0.2)


async def test_a_head_that_comes_byte_by_byte_is_too_slow(kind: Kind) -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                for byte in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1000:
                    connection.sendall(bytes([byte]))
                    if over.wait(0.05):
                        return

        threading.Thread(target=serve, daemon=True).start()
        transport = kind(Address("127.0.0.1", listener.getsockname()[1]), proxied=False)
        with pytest.raises(TooSlow):
            await asyncio.wait_for(read(transport, "GET", "/", {}, seconds=0.3), 10)
        over.set()
