"""A body in chunks is parsed in slices, with the other connections' turns between them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from fakes.waiting import turn, turns_until
from puna.server.protocol import _SLICE, Limits, Protocol

HEAD = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
ONE_BYTE = b"1\r\na\r\n"
MANY = 20_000


class Wire(asyncio.Transport):
    """A transport that says whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.closed = True, False
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Reader:
    """An application that keeps what it reads, and answers at the end."""

    def __init__(self) -> None:
        self.body = b""
        self.whole = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            self.body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        self.whole.set()


def connect(reader: Reader) -> tuple[Protocol, Wire]:
    config = Config(cast(Any, reader), log_config=None)
    config.load()
    limits = Limits(connections=8, read_timeout=30.0, write_timeout=30.0)
    made, wire = Protocol(config, ServerState(), {}, asyncio.get_running_loop(), limits=limits), Wire()
    made.connection_made(wire)
    return made, wire


async def test_a_read_of_many_chunks_is_more_turns_than_one() -> None:
    reader = Reader()
    made, wire = connect(reader)
    made.data_received(HEAD + ONE_BYTE * MANY + b"0\r\n\r\n")
    assert not wire.reads
    seen = 0
    while not reader.whole.is_set():
        assert len(reader.body) - seen <= 3 * _SLICE // len(ONE_BYTE), "of one turn"
        seen = len(reader.body)
        await turn()
    assert reader.body == b"a" * MANY
    assert wire.reads


async def test_what_is_read_all_the_same_comes_behind_what_waits() -> None:
    reader = Reader()
    made, _ = connect(reader)
    made.data_received(HEAD + ONE_BYTE * MANY)
    made.data_received(b"2\r\nbc\r\n")
    made.data_received(b"0\r\n\r\n")
    await asyncio.wait_for(reader.whole.wait(), 20)
    assert reader.body == b"a" * MANY + b"bc"


@pytest.mark.parametrize("rest", [b"no chunk", b"1\r\naa\r\n"])
async def test_a_fault_in_a_later_slice_is_told(rest: bytes) -> None:
    reader = Reader()
    made, _ = connect(reader)
    made.data_received(HEAD + ONE_BYTE * MANY + rest)
    await turns_until(lambda: made._cycle is not None and made._cycle.fault is not None, 10, "the fault")
    assert made._cycle is not None
    assert made._cycle.fault is not None
    assert made._cycle.fault.code == "invalid_http"


async def test_a_client_that_goes_while_a_slice_waits_is_gone() -> None:
    reader = Reader()
    made, _ = connect(reader)
    made.data_received(HEAD + ONE_BYTE * MANY)
    made.connection_lost(None)
    for _ in range(20):
        await turn()
    assert len(reader.body) < MANY
