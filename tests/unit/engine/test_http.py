"""HTTP over a Unix socket, against a server that writes exactly the bytes a test says."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from puna.engine.llama.http import READ_LIMIT, EngineSocket

Handler: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]

STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[EngineSocket]:
    """An engine's socket whose connections `handler` answers, once it has read the request's head."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handler(reader, writer)
        writer.close()

    # Not pytest's directory: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="puna-") as folder:
        path = Path(folder) / "s.sock"
        async with await asyncio.start_unix_server(connected, str(path)):
            yield EngineSocket(path)


def writing(*pieces: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return handler


async def test_a_request_carries_its_body_and_asks_for_a_connection_of_its_own() -> None:
    seen: list[tuple[bytes, object]] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        seen.append((head, json.loads(await reader.readexactly(size))))
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"tokens":[1]}')

    async with serving(handler) as engine:
        assert await engine.ask("POST", "/tokenize", {"content": "é\n"}) == (200, {"tokens": [1]})
    head, body = seen[0]
    assert head.startswith(b"POST /tokenize HTTP/1.1\r\n")
    assert b"\r\nConnection: close\r\n" in head
    assert body == {"content": "é\n"}


async def test_a_refusal_is_an_answer_like_any_other() -> None:
    async with serving(writing(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 11\r\n\r\n", b'{"error":1}')) as engine:
        assert await engine.ask("GET", "/x") == (400, {"error": 1})


@pytest.mark.parametrize("size", [1, 3, 10_000])
async def test_chunks_arrive_whole_however_they_are_cut(size: int) -> None:
    lines = [b'data: {"content":"%d"}\n\n' % number for number in range(40)]
    wire = STREAM + b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines) + b"0\r\n\r\n"
    cut = [wire[begin : begin + size] for begin in range(0, len(wire), size)]
    async with serving(writing(*cut)) as engine, engine.open("POST", "/completion", {}) as exchange:
        read = []
        while data := await exchange.read():
            read.append(data)
        assert exchange.status == 200
        assert b"".join(read) == b"".join(lines)
        assert await exchange.read() == b""


@pytest.mark.parametrize(
    "wire",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", STREAM + b"5\r\nhel", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel"],
)
async def test_an_answer_that_breaks_off_is_an_error(wire: bytes) -> None:
    async with serving(writing(wire)) as engine:
        with pytest.raises(OSError, match="closed"):
            await engine.ask("GET", "/health")


async def test_what_came_before_the_break_is_read_first() -> None:
    async with serving(writing(STREAM + b"5\r\nhello\r\n")) as engine, engine.open("GET", "/x") as exchange:
        assert await exchange.read() == b"hello"
        with pytest.raises(ConnectionResetError):
            await exchange.read()


async def test_what_is_no_http_is_an_error() -> None:
    async with serving(writing(b"SSH-2.0-OpenSSH\r\n\r\n")) as engine:
        with pytest.raises(OSError, match="no HTTP"):
            await engine.ask("GET", "/health")


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        await EngineSocket(tmp_path / "none.sock").ask("GET", "/health")


async def test_leaving_closes_the_connection() -> None:
    closed = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(STREAM + b"5\r\nhello\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        closed.set()

    async with serving(handler) as engine:
        async with engine.open("GET", "/x") as exchange:
            await exchange.read()
        await asyncio.wait_for(closed.wait(), 30)


async def test_who_does_not_read_holds_the_engine_back() -> None:
    sent = 0
    stuck = asyncio.Event()
    many = 64 * READ_LIMIT

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % many)
        while sent < many:
            writer.write(bytes(READ_LIMIT))
            sent += READ_LIMIT
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except asyncio.TimeoutError:
                stuck.set()
                await writer.drain()

    async with serving(handler) as engine, engine.open("GET", "/x") as exchange:
        await asyncio.wait_for(stuck.wait(), 30)
        assert sent < many
        read = 0
        while data := await exchange.read():
            read += len(data)
        assert read == many


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not made for Windows")
def test_on_the_event_loop_that_serves() -> None:
    import uvloop

    async def main() -> None:
        pieces = (STREAM, b"5\r\nhello\r\n", b"0\r\n\r\n")
        async with serving(writing(*pieces)) as engine, engine.open("GET", "/x") as exchange:
            assert await exchange.read() == b"hello"
            assert await exchange.read() == b""

    uvloop.run(main())


async def test_a_connection_opened_ahead_serves_the_next_request() -> None:
    connections: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = len(connections)
        connections.append(b"")
        connections[mine] = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with serving(handler) as engine:
        async with engine.open("POST", "/first", {}, more=True) as exchange:
            await exchange.json()
        await engine.ask("GET", "/second")
        await engine.ask("GET", "/third")
    assert connections == [b"/first", b"/second", b"/third"]


async def test_a_connection_opened_ahead_is_dropped_when_nothing_follows() -> None:
    left = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await reader.read(1):
            left.set()
            return
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with serving(handler) as engine:
        async with engine.open("POST", "/first", {}, more=True) as exchange:
            await exchange.json()
        await asyncio.wait_for(left.wait(), 30)
        left.clear()
        async with engine.open("POST", "/first", {}, more=True) as exchange:
            await exchange.json()
        engine.close()
        await asyncio.wait_for(left.wait(), 30)


async def test_a_connection_is_opened_ahead_when_asked_and_not_after_the_end() -> None:
    opened: list[asyncio.StreamReader] = []
    first = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(reader)
        first.set()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with serving(handler) as engine:
        engine.open_ahead()
        await asyncio.wait_for(first.wait(), 30)
        await engine.ask("GET", "/first")
        assert len(opened) == 1
        engine.close()
        engine.open_ahead()
        await engine.ask("GET", "/second")
        assert len(opened) == 2
