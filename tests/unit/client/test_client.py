"""The client against servers that behave well and badly: each a real handler on a loopback port."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest
from aiohttp import web

from puna.client.channel import Channel
from puna.client.client import Client
from puna.client.errors import ConnectionLost, ServerRefused, ServerUnreachable
from puna.settings import IDENTITY, Address
from puna.types import Progress

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def talking_to(handler: Handler) -> AsyncIterator[Client]:
    """A client of a Puna that answers everything with `handler`."""

    async def identified(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD" and request.path == "/":
            return web.Response(headers={IDENTITY: "1.0"})
        return await handler(request)

    runner = web.ServerRunner(web.Server(identified))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        async with Client(Address(host, port)) as client:
            yield client
    finally:
        await runner.cleanup()


def json_answer(value: object, status: int = 200) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(value, status=status)

    return answer


def stream(*pieces: bytes, headers: dict[str, str] | None = None, broken: bool = False) -> Handler:
    """`broken`: the connection is cut after the pieces."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if broken:
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


async def test_no_server_is_a_clean_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with Client(Address("127.0.0.1", port)) as client:
        with pytest.raises(ServerUnreachable, match="run 'puna serve' to start it") as caught:
            await client.identify()
    assert str(port) in str(caught.value)


async def test_a_server_elsewhere_is_not_started_here() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    channel = Channel(Address("127.0.0.1", port), api_key=None, on_identified=lambda version: None, direct=False)
    channel.local = False
    with pytest.raises(ServerUnreachable) as caught:
        await channel.identify()
    assert "puna serve" not in str(caught.value)
    assert "is the address right" in str(caught.value)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        (Address("127.0.0.1"), True),
        (Address("::1"), True),
        (Address(""), True),
        (Address("localhost"), True),
        (Address("192.168.1.5"), False),
        (Address("example.com"), False),
    ],
)
def test_local_means_this_machine(address: Address, local: bool) -> None:
    assert Client(address).local is local


async def test_an_error_is_its_text() -> None:
    async with talking_to(json_answer({"error": "model 'x' not found"}, 404)) as client:
        with pytest.raises(ServerRefused) as caught:
            await client.show("x")
    assert (str(caught.value), caught.value.http_status) == ("model 'x' not found", 404)


async def test_an_error_that_is_no_json_is_told_as_it_is() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text="Bad gateway\n", status=502)

    async with talking_to(answer) as client:
        with pytest.raises(ServerRefused, match="^Bad gateway$"):
            await client.models()


@pytest.mark.parametrize("value", [[], "x", 5])
async def test_an_answer_of_another_shape_is_refused(value: object) -> None:
    async with talking_to(json_answer(value)) as client:
        with pytest.raises(ServerRefused, match="does not understand"):
            await client.models()


async def test_a_list_as_a_real_ollama_gives_it() -> None:
    entry = {
        "name": "smollm2:135m",
        "modified_at": "2026-11-23T11:54:54.722923005+02:00",
        "size": 98363377,
        "digest": "b3" * 32,
        "details": {"family": "llama", "families": None, "parameter_size": "134.52M", "quantization_level": "Q4_1"},
    }
    async with talking_to(json_answer({"models": [entry]})) as client:
        (model,) = await client.models()
    assert model.modified == datetime(2026, 11, 23, 9, 54, 54, 722923, tzinfo=timezone.utc)
    assert (model.name, model.size, model.details.quantization_level) == ("smollm2:135m", 98363377, "Q4_1")


async def test_lines_may_arrive_in_any_pieces() -> None:
    data = line(message={"content": "a\u2028ü"}, done=False) + line(message={"content": ""}, done=True, eval_count=3)
    pieces = [data[start : start + 5] for start in range(0, len(data), 5)]
    async with talking_to(stream(*pieces)) as client, client.chat({"model": "x"}) as answer:
        chunks = [chunk async for chunk in answer.chunks]
    assert [chunk.text for chunk in chunks] == ["a\u2028ü", ""]
    assert chunks[-1].stats is not None
    assert chunks[-1].stats.tokens == 3


async def test_what_the_server_reports_reaches_the_caller() -> None:
    headers = {"x-puna-ignored": "options.wat", "x-puna-truncated": "2"}
    handler = stream(line(response="", done=True), headers=headers)
    async with talking_to(handler) as client, client.generate({"model": "x"}) as answer:
        notices = answer.notices
    assert "options.wat" in notices[0]
    assert "2 earlier" in notices[1]


async def test_an_error_line_ends_a_stream() -> None:
    handler = stream(line(response="a", done=False), line(error="no more"))
    async with talking_to(handler) as client, client.generate({"model": "x"}) as answer:
        with pytest.raises(ServerRefused, match="^no more$"):
            [chunk async for chunk in answer.chunks]


@pytest.mark.parametrize("broken", [True, False])
async def test_a_stream_that_stops_early_is_noticed(broken: bool) -> None:
    handler = stream(line(response="a", done=False), broken=broken)
    async with talking_to(handler) as client, client.generate({"model": "x"}) as answer:
        with pytest.raises(ConnectionLost, match="lost in the middle"):
            [chunk async for chunk in answer.chunks]


async def test_progress_must_end_with_success() -> None:
    steps = line(status="pulling", digest="sha256:1", total=10, completed=4) + line(status="success")
    async with talking_to(stream(steps)) as client:
        assert [step async for step in client.pull("x")] == [
            Progress("pulling", "sha256:1", 10, 4),
            Progress("success"),
        ]
    async with talking_to(stream(line(status="pulling"))) as client:
        with pytest.raises(ConnectionLost):
            [step async for step in client.pull("x")]


async def test_leaving_an_answer_closes_its_connection() -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(line(response="a", done=False))
                await asyncio.sleep(0)
        except ConnectionError:
            gone.set()
            raise

    async with talking_to(endless) as client:
        async with client.generate({"model": "x"}) as answer:
            await anext(answer.chunks)
        await asyncio.wait_for(gone.wait(), 30)


async def test_an_upload_tells_how_far_it_is(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(bytes(3 << 20))
    received: list[int] = []

    async def take(request: web.Request) -> web.StreamResponse:
        count = 0
        async for data in request.content.iter_any():
            count += len(data)
        received.append(count)
        return web.Response(status=201)

    sent: list[int] = []
    async with talking_to(take) as client:
        await client.upload("sha256:0", file, sent.append)
    assert received == [3 << 20]
    assert sent == [1 << 20, 2 << 20, 3 << 20]


@pytest.mark.parametrize(("status", "taken"), [(201, True), (200, True), (400, False), (403, False)])
async def test_an_offered_file_is_taken_or_must_be_sent(status: int, taken: bool) -> None:
    paths: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        paths.append(request.headers.get("x-puna-local-file"))
        return web.Response(status=status)

    async with talking_to(answer) as client:
        assert await client.offer_file("sha256:0", Path("/ü/x y.gguf")) is taken
    assert paths == ["/%C3%BC/x%20y.gguf"]
