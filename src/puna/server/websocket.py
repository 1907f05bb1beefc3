"""One WebSocket (RFC 6455), served as the two endless bodies of an HTTP request that was upgraded.

`protocol` gives an answer of status 101 the connection itself: what the client sends comes as more of the request's
body, what is sent goes out as it is. So all that requests pass (keys, origins, hosts, limits, the server's end) counts
here too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from puna.errors import Cancelled, InvalidRequest
from puna.server.ending import Ending

if TYPE_CHECKING:
    from websockets.server import ServerProtocol

OFFER = "x-upgrade-offer"
"""What `protocol` calls the header that offers to upgrade."""

GOING_AWAY = 1001
NOT_UNDERSTOOD = 1003

IDLE_SECONDS = 3600.0
"""How long a client may say nothing between two messages."""


def offers_websocket(headers: Headers) -> bool:
    """Whether a request would go on as a WebSocket."""
    return headers.get(OFFER, "").strip().lower() == "websocket"


class WebSocket:
    """Entered once the handshake is right (InvalidRequest else); left, it is closed. `most`: bytes of one message."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, ending: Ending, *, most: int) -> None:
        self._headers = Headers(scope=scope)
        self._path: str = scope["path"]
        self._state: dict[str, Any] = scope["state"]
        self._receive = receive
        self._send = send
        self._ending = ending
        self._most = most
        self._waiting: deque[str] = deque()
        self._pieces: list[bytes] = []
        """Of a message that is not whole yet."""
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._protocol: ServerProtocol | None = None

    async def __aenter__(self) -> WebSocket:
        from websockets.datastructures import Headers as WebSocketHeaders
        from websockets.http11 import Request
        from websockets.protocol import State
        from websockets.server import ServerProtocol

        door = ServerProtocol()
        offered = WebSocketHeaders()
        for name, value in self._headers.items():
            offered["Upgrade" if name == OFFER else name] = value
        response = door.accept(Request(self._path, offered))
        if response.status_code != 101:
            raise InvalidRequest(f"This is no offer of a WebSocket: {door.handshake_exc}.", code="invalid_http")
        # The head goes out by the way of all answers; what is behind it are frames from the first byte on.
        self._protocol = ServerProtocol(state=State.OPEN, max_size=self._most)
        headers = [
            (name.lower().encode(), value.encode("latin-1"))
            for name, value in response.headers.raw_items()
            if name.lower() != "date"
        ]
        self._state["upgraded"] = True
        await self._send({"type": "http.response.start", "status": 101, "headers": headers})
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._reader is not None
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self.close()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def messages(self) -> AsyncGenerator[str, None]:
        """What the client says, until it closes or says nothing for `IDLE_SECONDS`."""
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._over.is_set():
                return
            self._news.clear()
            try:
                with self._ending.resting():
                    await asyncio.wait_for(self._news.wait(), IDLE_SECONDS)
            except asyncio.TimeoutError:
                return

    async def send(self, text: str) -> None:
        """One message. Cancelled when the client has gone."""
        assert self._protocol is not None
        if self._over.is_set():
            raise Cancelled("The client closed the connection.")
        self._protocol.send_text(text.encode("utf-8", "replace"))
        await self._flush()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        from websockets.protocol import State

        if self._protocol is not None and self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            await self._flush()

    async def _flush(self) -> None:
        assert self._protocol is not None
        for data in self._protocol.data_to_send():
            if data:
                await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def while_open(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it. Cancelled, and so is the work, when the client goes away meanwhile."""
        task, over = asyncio.ensure_future(work), asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({task, over}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Cancelled("The client closed the connection.")
            task.result()
        finally:
            task.cancel()
            over.cancel()
            await asyncio.gather(task, over, return_exceptions=True)

    async def _read(self) -> None:
        """Frames as they come: pings are answered, and so is closing; texts wait to be read."""
        try:
            while not self._over.is_set():
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    return
                await self._take(message.get("body", b""))
        finally:
            self._over.set()
            self._news.set()

    async def _take(self, data: bytes) -> None:
        from websockets.frames import OP_BINARY, OP_CLOSE, OP_CONT, OP_TEXT, Frame

        assert self._protocol is not None
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode is OP_BINARY:
                self._protocol.fail(NOT_UNDERSTOOD, "messages are text")
            elif event.opcode in {OP_TEXT, OP_CONT}:
                self._pieces.append(bytes(event.data))
                if event.fin:
                    self._waiting.append(b"".join(self._pieces).decode("utf-8", "replace"))
                    self._pieces.clear()
                    self._news.set()
            elif event.opcode is OP_CLOSE:
                self._over.set()
        await self._flush()
        if self._protocol.close_expected():
            self._over.set()
