"""The server's end of the connection to a cpu engine's child: asks go out, replies come into the mailbox of their ask.

Bytes are taken as they arrive: a step of the engine wakes each task that it has something for, and no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from puna.engine.cpu.protocol import (
    AskMessage,
    Failed,
    Frames,
    Hello,
    Load,
    ReplyBody,
    ask_frame,
    load_frame,
    read_hello,
    read_replies,
)


class ReplyBox:
    """Replies to one ask, in order; None: the child has gone. One task reads them.

    `replies`: those that have come. Where there are none, `wait` returns when there is one.
    """

    __slots__ = ("_loop", "_waiter", "replies")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.replies: deque[ReplyBody | None] = deque()
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None

    def put(self, reply: ReplyBody | None) -> None:
        self.replies.append(reply)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        while not self.replies:
            self._waiter = waiter = self._loop.create_future()
            await waiter


class Link(asyncio.Protocol):
    """One connection, which carries all asks; each has a number.

    `connected`: the child is there. `hello`: done with its first word; None if it went without one. `gone`: it has
    closed.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._mailboxes: dict[int, ReplyBox] = {}
        self._order: Load | None = None
        self.connected: asyncio.Future[None] = self._loop.create_future()
        self.hello: asyncio.Future[Hello | Failed | None] = self._loop.create_future()
        self.gone: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self.connected.done():
            self.connected.set_result(None)
        if self._order is not None:
            self._transport.write(load_frame(self._order))

    def data_received(self, data: bytes) -> None:
        for payload in self._frames.feed(data):
            if self.hello.done():
                self._deliver(payload)
            else:
                self.hello.set_result(read_hello(payload))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.hello.done():
            self.hello.set_result(None)
        if not self.gone.done():
            self.gone.set_result(None)
        for mailbox in self._mailboxes.values():
            mailbox.put(None)

    def _deliver(self, payload: bytes) -> None:
        mailboxes = self._mailboxes
        for number, reply in read_replies(payload):
            mailbox = mailboxes.get(number)
            if mailbox is not None:
                mailbox.put(reply)

    def order(self, load: Load) -> None:
        """Say what to load, once: now, or when the child is there."""
        self._order = load
        if self._transport is not None:
            self._transport.write(load_frame(load))

    def open(self, ask: AskMessage) -> ReplyBox:
        """Send the ask; its replies come into the mailbox until `forget`."""
        mailbox = self._mailboxes[ask.number] = ReplyBox(self._loop)
        if self.gone.done():
            mailbox.put(None)
        else:
            self.send(ask)
        return mailbox

    def forget(self, number: int) -> None:
        """Nobody reads that mailbox any more."""
        del self._mailboxes[number]

    def open_numbers(self) -> frozenset[int]:
        """Of the asks that somebody waits for."""
        return frozenset(self._mailboxes)

    def send(self, ask: AskMessage) -> None:
        """Without effect once the child has gone."""
        if self._transport is not None and not self.gone.done():
            self._transport.write(ask_frame(ask))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
