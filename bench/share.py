"""What a token costs on its way from the engine's child to the client's socket: processor time of the server alone.

`python bench/share.py [--tokens 500] [--streams 1,16] [--rounds 5]`. A child without a model speaks the cpu engine's
protocol and gives every stream a token a step, slowly enough that nothing is behind. Processor time is counted, not the
clock, so that neighbours on the machine matter little. Each round asks every dialect, and a relay after them: the least
that could be done, a frame in and a chunk out for each stream, without a server. Its ratio is what Puna adds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from puna.engine.cpu.protocol import (
    SOCKET,
    AskCancel,
    AskDetokenize,
    AskGenerate,
    AskTokenize,
    Hello,
    Reply,
    ask_frame,
    hello_frame,
    read_ask,
    read_frame,
    read_replies,
    receive_frame,
    replies_frame,
)
from puna.engine.runner import End, Prefilled, Sampling, Token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve()

STEP, EACH = 0.0015, 0.0003
"""Seconds that a step of the child takes, and what each of its streams adds."""

EDGE = 20
"""Tokens of each stream that do not count, since its request is read meanwhile."""

WORDS = [b" the", b" of", b" a", b"ing", b" model", b".", b"\n", b" tokens", b' "', " é".encode()]

PATHS = {
    "openai chat": ("/v1/chat/completions", b"data: {", '{"model":"m","messages":[{"role":"user","content":"Hi"}],%s}'),
    "ollama chat": (
        "/api/chat",
        b'{"model"',
        '{"model":"m","messages":[{"role":"user","content":"Hi"}],"options":{%s}}',
    ),
}
"""Path, how a chunk begins, and a body that still lacks how many tokens."""


# --------------------------------------------------------------------------------------------- the child without model


def child() -> None:
    """Gives each stream a token a step."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(SOCKET)
    receive_frame(connection)
    hello = Hello("flood", 256, None, (0,), False, 8, 1 << 20, 1 << 20, {})
    connection.sendall(hello_frame(hello))
    left: dict[int, int] = {}
    done: dict[int, int] = {}
    buffer = b""
    due = time.perf_counter()
    while True:
        wait = max(due - time.perf_counter(), 0) if left else None
        if select.select([connection], [], [], wait)[0]:
            data = connection.recv(1 << 16)
            if not data:
                return
            buffer += data
            while len(buffer) >= 4 and len(buffer) >= 4 + struct.unpack(">I", buffer[:4])[0]:
                length = struct.unpack(">I", buffer[:4])[0]
                ask, buffer = read_ask(buffer[4 : 4 + length]), buffer[4 + length :]
                match ask:
                    case AskGenerate():
                        left[ask.number], done[ask.number] = ask.sampling.max_tokens, 0
                    case AskTokenize():
                        connection.sendall(replies_frame([(ask.number, list(ask.text.encode()))]))
                    case AskDetokenize():
                        connection.sendall(replies_frame([(ask.number, bytes(ask.tokens))]))
                    case AskCancel():
                        left.pop(ask.number, None)
            continue
        due = max(due + STEP + EACH * len(left), time.perf_counter())
        connection.sendall(replies_frame(told(left, done)))


def told(left: dict[int, int], done: dict[int, int]) -> list[Reply]:
    replies: list[Reply] = []
    for number in list(left):
        count = done[number]
        if not count:
            replies.append((number, Prefilled(8, 0, 1)))
        replies.append((number, Token(1 + count % 255, WORDS[(count + number) % len(WORDS)])))
        done[number] += 1
        left[number] -= 1
        if not left[number]:
            replies.append((number, End("length", 8, 0, done[number])))
            del left[number]
    return replies


# ---------------------------------------------------------------------------------------------------------- the servers


def serve(listener: socket.socket) -> None:
    """Puna, over that child."""
    from puna.engine.cpu.client import CpuEngine
    from puna.engine.stand_in import stand_in
    from puna.server.log import configure_logging
    from puna.server.run import Server, parts
    from puna.settings import Settings

    class Flood(CpuEngine):
        child = "share"

        def obstacle(self) -> None:
            return None

        def opinion(self, model, load):  # type: ignore[no-untyped-def]
            return replace(super().opinion(model, load), objection=None)

    async def main() -> None:
        settings = Settings(models=Path(tempfile.mkdtemp()))
        configure_logging(debug=False, quiet=True)
        async with parts(settings, {"cpu": Flood(settings)}, lambda name, _: stand_in(name)) as services:
            await Server(services, on_ready=lambda: None).serve(sockets=[listener])

    _run(main())


def relay(listener: socket.socket) -> None:
    """A frame in, a chunk out for each token; nothing else is done."""
    chunk = b'data: {"id":"chatcmpl-%d","object":"chat.completion.chunk","choices":[{"index":0,"delta":"%b"}]}\n\n'

    async def main() -> None:
        directory = Path(tempfile.mkdtemp())
        writers: dict[int, asyncio.StreamWriter] = {}
        engine: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()

        async def from_engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            engine.set_result(writer)
            await read_frame(reader)
            while payload := await read_frame(reader):
                for number, one in read_replies(payload):
                    if isinstance(one, Token):
                        frame = chunk % (number, one.data)
                        writers[number].write(b"%x\r\n%b\r\n" % (len(frame), frame))
                    elif isinstance(one, End):
                        writers[number].close()

        async def from_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            number = len(writers) + 1
            writers[number] = writer
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            sampling = Sampling(max_tokens=int(os.environ["PUNA_TEST_TOKENS"]), seed=1)
            (await engine).write(ask_frame(AskGenerate(number, (1,), sampling, None)))

        inner = await asyncio.start_unix_server(from_engine, directory / SOCKET)
        outer = await asyncio.start_server(from_client, sock=listener)
        with subprocess.Popen([sys.executable, HERE], cwd=directory) as flood:  # noqa: ASYNC220
            try:
                await asyncio.Event().wait()
            finally:
                flood.kill()
                inner.close()
                outer.close()

    _run(main())


def _run(main) -> None:  # type: ignore[no-untyped-def]
    import uvloop

    uvloop.run(main)


# -------------------------------------------------------------------------------------------------------- what is asked


@contextmanager
def running(what: str, tokens: int) -> Iterator[tuple[int, psutil.Process]]:
    """The port, and the process whose time counts."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        environment = os.environ | {
            "PYTHONPATH": str(HERE.parent),
            "PUNA_TEST_TOKENS": str(tokens),
        }
        process = subprocess.Popen(
            [sys.executable, HERE, what, str(listener.fileno())], pass_fds=[listener.fileno()], env=environment
        )
        port = listener.getsockname()[1]
    try:
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def ask(
    port: int, path: str, begins: bytes, body: bytes, streams: int, spent: Callable[[], tuple[float, ...]]
) -> tuple[float, ...]:
    """So many streams at once. What was spent for each token, after the first EDGE of each and before the last."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    )
    connections = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(streams)]
    seen = dict.fromkeys(connections, 0)
    for connection in connections:
        connection.sendall(head + body)
    began: tuple[int, tuple[float, ...]] | None = None
    ended: tuple[int, tuple[float, ...]] | None = None
    open_, data = set(connections), b""
    while open_:
        for connection in select.select(list(open_), [], [], 60)[0]:
            last, data = data, connection.recv(1 << 16)
            seen[connection] += data.count(begins)
            if not data:
                open_.discard(connection)
                if seen[connection] < 2 * EDGE:
                    raise RuntimeError(f"{path}: the stream ended after {seen[connection]} tokens: {last!r}")
        if began is None and min(seen.values()) > EDGE:
            began = sum(seen.values()), spent()
        if ended is None and len(open_) < streams:
            ended = sum(seen.values()), spent()
    assert began is not None
    assert ended is not None
    return tuple((new - old) / (ended[0] - began[0]) * 1e6 for old, new in zip(began[1], ended[1], strict=True))


def cost(what: str, dialect: str, streams: int, tokens: int) -> tuple[float, ...]:
    """Microseconds of processor time for each token: of the server, and of the child."""
    path, begins, body = PATHS[dialect]
    said = f'"stream":true,"max_tokens":{tokens}' if dialect.startswith("openai") else f'"num_predict":{tokens}'
    with running(what, tokens) as (port, process):
        ask(port, path, begins, (body % said).encode(), streams, lambda: ())
        return ask(port, path, begins, (body % said).encode(), streams, lambda: _spent(process))


def _spent(process: psutil.Process) -> tuple[float, ...]:
    """Seconds of processor time, of it and of its children."""
    return _ran(process), sum(map(_ran, process.children()))


def _ran(process: psutil.Process) -> float:
    tasks = Path(f"/proc/{process.pid}/task")
    if tasks.exists():  # to the nanosecond
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--streams", default="1,16")
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args()
    for streams in (int(text) for text in wanted.streams.split(",")):
        found: dict[str, list[float]] = {}
        for _ in range(wanted.rounds):
            least, _ = cost("relay", "openai chat", streams, wanted.tokens)
            found.setdefault("relay", []).append(least)
            for dialect in PATHS:
                server, engine = cost("serve", dialect, streams, wanted.tokens)
                found.setdefault(dialect, []).append(server)
                found.setdefault(f"{dialect}, of the relay", []).append(server / least)
                found.setdefault("child", []).append(engine)
        for name, values in found.items():
            unit = "×" if "of the" in name else "µs a token"
            print(f"{streams:>3} streams  {name:<26} {statistics.median(values):8.2f} {unit}")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in {"serve", "relay"}:
        {"serve": serve, "relay": relay}[sys.argv[1]](socket.socket(fileno=int(sys.argv[2])))
    elif Path(SOCKET).exists():
        child()
    else:
        main()
