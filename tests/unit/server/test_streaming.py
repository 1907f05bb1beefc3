"""EventStream over hand-made ASGI channels, so that time and disconnects are exact."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import pytest

from puna.errors import Cancelled, DeadlineExceeded, Overloaded, ServerStopping
from puna.server.ending import interrupt
from puna.server.streaming import NDJSON, SSE, EventStream, unless_gone


class Client:
    """The other end: what was sent, and a way to hang up."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.hung_up = asyncio.Event()
        self.news = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self.news.set()

    async def until(self, count: int) -> None:
        while len(self.sent) < count:
            self.news.clear()
            await self.news.wait()

    async def run(self, stream: EventStream) -> None:
        await stream({"type": "http"}, self.receive, self.send)

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.sent[1:]]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


class Frames:
    """Frames that come when told; remembers whether it was closed."""

    def __init__(self, *frames: bytes | BaseException, wait: asyncio.Event | None = None) -> None:
        self.frames = frames
        self.wait = wait
        self.closed = False

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            for frame in self.frames:
                if isinstance(frame, BaseException):
                    raise frame
                yield frame
            if self.wait is not None:
                await self.wait.wait()
                yield b"late"
        finally:
            self.closed = True


async def test_frames_go_out_and_end():
    client, frames = Client(), Frames(b"a", b"b")
    await client.run(EventStream(frames(), SSE))
    assert client.sent[0]["status"] == 200
    assert client.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert client.bodies == [b"a", b"b", b""]
    assert [message["more_body"] for message in client.sent[1:]] == [True, True, False]
    assert frames.closed


async def test_no_frames_is_an_empty_answer():
    client = Client()
    await client.run(EventStream(Frames()(), NDJSON))
    assert client.sent[0]["status"] == 200
    assert client.bodies == [b""]


async def test_a_fault_before_the_first_frame_is_raised():
    client = Client()
    with pytest.raises(Overloaded):
        await client.run(EventStream(Frames(Overloaded("full"))(), SSE))
    assert client.sent == []


@pytest.mark.parametrize(
    ("framing", "expected"),
    [(SSE, b'data: {"error":{"message":"full"'), (NDJSON, b'{"error":"full"}\n')],
)
async def test_a_fault_after_it_is_a_frame(framing, expected):
    client = Client()
    await client.run(EventStream(Frames(b"a", Overloaded("full"))(), framing))
    assert client.bodies[1].startswith(expected)
    assert client.bodies[2:] == [b""]


async def test_a_fault_of_ours_tells_nothing_but_an_id():
    client = Client()
    await client.run(EventStream(Frames(b"a", ZeroDivisionError("secret"))(), SSE))
    assert b"request id" in client.bodies[1]
    assert b"secret" not in client.bodies[1]


async def test_a_client_that_hangs_up_stops_the_work():
    client, frames = Client(), Frames(b"a", wait=asyncio.Event())
    running = asyncio.ensure_future(client.run(EventStream(frames(), SSE)))
    await client.until(2)
    client.hung_up.set()
    with pytest.raises(Cancelled):
        await running
    assert frames.closed
    assert client.bodies == [b"a"]


async def test_silence_before_the_first_frame_begins_the_stream_with_comments():
    client, late = Client(), asyncio.Event()
    running = asyncio.ensure_future(client.run(EventStream(Frames(wait=late)(), SSE, grace=0.01, silence=0.01)))
    await client.until(4)
    late.set()
    await running
    assert client.sent[0]["status"] == 200
    assert set(client.bodies[:3]) == {b": still working\n\n"}
    assert client.bodies[-2:] == [b"late", b""]


async def test_what_is_refused_does_not_begin_with_a_comment_while_it_cleans_up():
    client, late, clean = Client(), asyncio.Event(), asyncio.Event()

    async def frames() -> AsyncGenerator[bytes, None]:
        await late.wait()
        raise Overloaded("full")
        yield b"never"

    class Slow:
        """Its cleaning takes longer than a stream waits for its first frame."""

        def __init__(self) -> None:
            self.inner = frames()

        def __aiter__(self) -> AsyncGenerator[bytes, None]:
            return self.inner

        async def aclose(self) -> None:
            await asyncio.wait_for(clean.wait(), 20)
            await self.inner.aclose()

    running = asyncio.ensure_future(client.run(EventStream(Slow(), SSE, grace=0.02, silence=0.01)))
    late.set()
    done, _ = await asyncio.wait({running}, timeout=0.1)
    assert not done
    clean.set()
    with pytest.raises(Overloaded):
        await running
    assert client.sent == []


async def test_a_framing_without_comments_waits_for_its_first_frame():
    client, late = Client(), asyncio.Event()
    running = asyncio.ensure_future(client.run(EventStream(Frames(wait=late)(), NDJSON, grace=0, silence=0.001)))
    done, _ = await asyncio.wait({running}, timeout=0.05)
    assert not done
    assert client.sent == []
    late.set()
    await running
    assert client.bodies == [b"late", b""]


async def test_a_cancelled_server_closes_its_frames():
    client, frames = Client(), Frames(b"a", wait=asyncio.Event())
    running = asyncio.ensure_future(client.run(EventStream(frames(), SSE)))
    await client.until(2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert frames.closed


async def test_comments_tell_how_the_request_stands():
    client, late = Client(), asyncio.Event()
    stream = EventStream(Frames(wait=late)(), SSE, grace=0, silence=0.001)
    scope = {"type": "http", "state": {"standing": lambda: "queued: number 2 in line for tiny:latest"}}
    running = asyncio.ensure_future(stream(scope, client.receive, client.send))
    await client.until(2)
    late.set()
    await running
    assert client.bodies[0] == b": queued: number 2 in line for tiny:latest\n\n"


@pytest.mark.parametrize(("framing", "expected"), [(SSE, b'data: {"error"'), (NDJSON, b'{"error"')])
async def test_an_interruption_is_an_event_of_a_stream_that_has_begun(framing, expected):
    client, frames, state = Client(), Frames(b"a", wait=asyncio.Event()), {}
    stream = EventStream(frames(), framing)
    running = asyncio.ensure_future(stream({"type": "http", "state": state}, client.receive, client.send))
    await client.until(2)
    interrupt(state, running, DeadlineExceeded())
    interrupt(state, running, ServerStopping())
    await running
    assert frames.closed
    assert client.bodies[1].startswith(expected)
    assert b"time that this request may take" in client.bodies[1]
    assert client.bodies[2:] == [b""]
    assert state["failed"] == "deadline_exceeded"


async def test_work_ends_when_the_client_goes():
    client = Client()
    ended = asyncio.Event()

    async def work() -> int:
        try:
            client.hung_up.set()
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 1

    with pytest.raises(Cancelled):
        await unless_gone(client.receive, work())
    assert ended.is_set()

    async def quick() -> int:
        return 1

    assert await unless_gone(Client().receive, quick()) == 1


async def test_what_a_refused_request_had_does_not_wait_for_the_garbage_collector():
    class Large:
        pass

    seen: list[weakref.ref[Large]] = []

    async def refused() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        raise Overloaded("no room")

    async def waiting() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    gc.disable()
    try:
        with suppress(Overloaded):
            await unless_gone(waiting, refused())
        await asyncio.sleep(0)
        assert seen[0]() is None
    finally:
        gc.enable()
