"""The child process of the cpu engine: one loaded model, answering the server over a Unix socket.

The main thread loads and then computes: an error there ends the process with its cause on stderr. A second thread
speaks with the server; when that goes away, the process ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from puna.engine import leash
from puna.engine.cpu.loaded import ModelParts, load
from puna.engine.cpu.loop import Cancel, Count, Generate, Loop, Score, Settle, Shutdown, Told, Weigh
from puna.engine.cpu.memory import give_back
from puna.engine.cpu.protocol import (
    SOCKET,
    AskCancel,
    AskCount,
    AskDetokenize,
    AskGenerate,
    AskMessage,
    AskScore,
    AskSettle,
    AskTokenize,
    AskWeigh,
    Failed,
    Reply,
    ReplyBody,
    hello_frame,
    read_ask,
    read_frame,
    read_load,
    receive_frame,
    replies_frame,
)
from puna.engine.cpu.voice import Voice
from puna.errors import PunaError

if TYPE_CHECKING:
    from puna.engine.cpu.constraint import GrammarMatcher, Grammars


def main() -> int:
    """Serve the model that the server names over the socket in the working directory. It may do so late, or never."""
    leash.ignore_interrupt()
    leash.follow_parent(leash.parent())
    leash.end_with_stdin()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(SOCKET)
    order = receive_frame(connection)
    if not order:
        return 0
    try:
        loaded = load(read_load(order))
    except PunaError as error:
        connection.sendall(hello_frame(Failed(error)))
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    connection.sendall(hello_frame(loaded.hello))
    give_back()
    serve(loaded, connection)
    return 0


def serve(loaded: ModelParts, connection: socket.socket) -> None:
    """Until the server goes away."""
    speaker = Speaker(loaded)
    loop = Loop(loaded.model, loaded.cache, loaded.limits, speaker.tell, pace=loaded.pace, disk=loaded.disk)

    def speak() -> None:
        try:
            asyncio.run(speaker.run(connection, loop))
        finally:
            loop.put(Shutdown())

    threading.Thread(target=speak, name="speaker", daemon=True).start()
    loop.run()


class Speaker:
    """Asks in, in its own thread, and replies out. What takes long and needs no model runs in `_workers`."""

    def __init__(self, loaded: ModelParts) -> None:
        self._loaded = loaded
        self._workers = ThreadPoolExecutor(max(2, (os.cpu_count() or 2) // 2), "worker")
        self._voice: Voice | None = None
        self._grammars: Grammars | None = None
        self._making_grammars = threading.Lock()
        self._preparing: dict[int, asyncio.Task[None]] = {}

    def tell(self, told: Told) -> None:
        """What a step brought. Called in the loop's thread."""
        self._send([(number, self._loaded.answer(event)) for number, event in told])

    async def run(self, connection: socket.socket, loop: Loop) -> None:
        """Obey until the server closes the connection."""
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        self._voice = Voice(connection, asyncio.get_running_loop())
        try:
            while payload := await read_frame(reader):
                self._obey(read_ask(payload), loop)
        finally:
            self._voice.close()
            writer.close()

    def _obey(self, ask: AskMessage, loop: Loop) -> None:
        match ask:
            case AskGenerate(number, tokens, sampling, None, prediction):
                loop.put(Generate(number, tokens, sampling, prediction=prediction))
            case AskGenerate(number):
                self._prepare(number, self._constrain(ask, loop))
            case AskScore(number, tokens, top):
                loop.put(Score(number, tokens, top))
            case AskWeigh(number, tokens, following):
                loop.put(Weigh(number, tokens, following))
            case AskCancel(number):
                if number in self._preparing:
                    self._preparing[number].cancel()
                loop.put(Cancel(number))
            case AskTokenize(number, text, special, bos):
                self._prepare(number, self._reply(number, lambda: self._loaded.encode(text, special=special, bos=bos)))
            case AskDetokenize(number, ids):
                self._prepare(number, self._reply(number, lambda: self._loaded.detokenize(ids)))
            case AskCount(number):
                loop.put(Count(number))
            case AskSettle(number):
                loop.put(Settle(number))

    def _prepare(self, number: int, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._preparing[number] = task
        task.add_done_callback(lambda _: self._preparing.pop(number))

    async def _constrain(self, ask: AskGenerate, loop: Loop) -> None:
        """Compile the grammar, then hand the request on."""
        try:
            matcher = await asyncio.get_running_loop().run_in_executor(self._workers, self._matcher, ask.gbnf or "")
        except PunaError as error:
            self._send([(ask.number, error)])
        else:
            loop.put(Generate(ask.number, ask.tokens, ask.sampling, matcher, ask.prediction))

    def _matcher(self, gbnf: str) -> GrammarMatcher:
        with self._making_grammars:
            grammars = self._grammars = self._grammars or self._loaded.grammars()
        return grammars.matcher(gbnf)

    async def _reply(self, number: int, work: Callable[[], ReplyBody]) -> None:
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._workers, work)
        except PunaError as error:
            answer = error
        self._send([(number, answer)])

    def _send(self, replies: list[Reply]) -> None:
        if self._voice is not None:
            self._voice.say(replies_frame(replies))


if __name__ == "__main__":
    sys.exit(main())
