"""The server's end of the connection to a child, over a real socket, with a child that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from puna.engine.cpu.link import Link
from puna.engine.cpu.protocol import (
    AskCancel,
    AskCount,
    Failed,
    Hello,
    hello_frame,
    read_ask,
    read_frame,
    replies_frame,
)
from puna.engine.runner import End, Token
from puna.errors import ModelFileError

HELLO = Hello("1", 320, None, (2,), False, 64, 4096, 10**9, {})
END = End("stop", 1, 0, 2)


@asynccontextmanager
async def linked(tmp_path: Path) -> AsyncIterator[tuple[Link, asyncio.StreamReader, asyncio.StreamWriter]]:
    """The server's end, and the child's."""
    link = Link()
    server = await asyncio.get_running_loop().create_unix_server(lambda: link, str(tmp_path / "s"))
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
    try:
        yield link, reader, writer
    finally:
        writer.close()
        link.close()
        await link.gone
        server.close()


async def test_replies_come_into_the_mailbox_of_their_ask_in_order(tmp_path: Path) -> None:
    async with linked(tmp_path) as (link, reader, writer):
        writer.write(hello_frame(HELLO))
        assert await link.hello == HELLO
        one, two = link.open(AskCount(1)), link.open(AskCount(2))
        assert [read_ask(await read_frame(reader)) for _ in range(2)] == [AskCount(1), AskCount(2)]
        writer.write(replies_frame([(2, Token(5, b"x")), (1, [7]), (2, END), (9, [1])]))
        await one.wait()
        assert [*one.replies] == [[7]]
        assert [*two.replies] == [Token(5, b"x"), END]
        await two.wait()


async def test_what_nobody_reads_is_dropped(tmp_path: Path) -> None:
    async with linked(tmp_path) as (link, reader, writer):
        writer.write(hello_frame(HELLO))
        await link.hello
        box = link.open(AskCount(1))
        link.forget(1)
        link.send(AskCancel(1))
        assert [read_ask(await read_frame(reader)) for _ in range(2)] == [AskCount(1), AskCancel(1)]
        other = link.open(AskCount(2))
        writer.write(replies_frame([(1, [1]), (2, [2])]))
        await other.wait()
        assert not box.replies


async def test_who_waits_is_told_that_the_child_has_gone_and_so_is_who_asks_then(tmp_path: Path) -> None:
    async with linked(tmp_path) as (link, _, writer):
        writer.write(hello_frame(HELLO))
        await link.hello
        waiting = link.open(AskCount(1))
        writer.close()
        await waiting.wait()
        assert [*waiting.replies] == [None]
        assert [*link.open(AskCount(2)).replies] == [None]


@pytest.mark.parametrize("first", [Failed(ModelFileError("broken")), None])
async def test_a_child_that_does_not_load(first: Failed | None, tmp_path: Path) -> None:
    async with linked(tmp_path) as (link, _, writer):
        if first is not None:
            writer.write(hello_frame(first))
        writer.close()
        said = await link.hello
        assert (said is None) is (first is None)
        assert said is None or (isinstance(said, Failed) and "broken" in str(said.error))
