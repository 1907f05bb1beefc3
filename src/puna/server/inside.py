"""Requests that the server makes to itself: through the same routes as everybody's, without a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message


@dataclass(slots=True)
class InsideAnswer:
    """What a route answered. `status` 0: nothing, since its work was cancelled."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


async def ask_inside(
    app: ASGIApp,
    path: str,
    body: bytes,
    owner: str,
    headers: Mapping[str, str] | None = None,
    state: Mapping[str, object] | None = None,
) -> InsideAnswer:
    """POST a JSON body to a path of `app`, in the name of `owner`. Nobody goes away while it is answered.

    `state`: what its route is told besides.
    """
    sent = {"host": "localhost", "content-type": "application/json", **(headers or {})}
    answer = InsideAnswer()
    pieces: list[bytes] = []
    unread = [body]

    async def receive() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError("nobody sets this event")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message["headers"]
            }
        else:
            pieces.append(message.get("body", b""))

    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()],
            "client": None,
            "server": None,
            "state": {"owner": owner, **(state or {})},
        },
        receive,
        send,
    )
    answer.body = b"".join(pieces)
    return answer
