"""What an answer writes in one turn of the event loop is one write; nothing of it is late or lost."""

from __future__ import annotations

import asyncio
from typing import cast

from fakes.waiting import turn
from puna.server.protocol import _Channel


class Wire:
    """A transport that keeps what is written, and the end."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return False

    def end(self) -> None:
        self.writes.append(b"(end)")


def channel() -> tuple[_Channel, Wire]:
    wire = Wire()
    return _Channel(cast(asyncio.Transport, wire), wire.end, asyncio.get_running_loop()), wire


async def test_a_turn_is_one_write() -> None:
    made, wire = channel()
    for piece in (b"a", b"b", b"c"):
        made.write(piece)
    assert wire.writes == []
    await turn()
    made.write(b"d")
    await turn()
    assert wire.writes == [b"abc", b"d"]


async def test_much_does_not_wait() -> None:
    made, wire = channel()
    made.write(b"a")
    made.write(b"b" * 70_000)
    made.write(b"c")
    assert wire.writes == [b"a" + b"b" * 70_000]
    await turn()
    assert wire.writes[1:] == [b"c"]


async def test_the_end_comes_after_all_that_was_written() -> None:
    made, wire = channel()
    made.write(b"a")
    made.close()
    await turn()
    assert wire.writes == [b"a", b"(end)"]
