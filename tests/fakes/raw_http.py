"""Bytes to a server and bytes back, for what no client library sends."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, read to its end. Header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object."""
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def events(self) -> list[str]:
        """The data of server-sent events."""
        blocks = self.body.decode().split("\n\n")
        return [block.removeprefix("data: ") for block in blocks if block.startswith("data: ")]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The same as JSON; the stream must end with [DONE]."""
        *chunks, last = self.events
        assert last == "[DONE]"
        return [json.loads(chunk) for chunk in chunks]


@contextmanager
def connected(port: int, *, timeout: float = 20) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        yield connection


def send(connection: socket.socket, data: bytes) -> bool:
    """Whether the server took all of it: one that has refused may close before."""
    try:
        connection.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def read_answer(connection: socket.socket, *, interim: bool = True) -> Answer:
    """The next answer. `interim`: skip answers below 200."""
    stream = connection.makefile("rb")
    while True:
        line = stream.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        status = int(line.split()[1])
        headers: dict[str, str] = {}
        while (field := stream.readline()) not in (b"\r\n", b""):
            name, _, value = field.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        if status >= 200 or not interim:
            return Answer(status, headers, _body(stream, headers, status))


def exchange(port: int, data: bytes, *, close: bool = False, timeout: float = 20) -> Answer:
    """Send, and read one answer. `close`: close the sending side first."""
    with connected(port, timeout=timeout) as connection:
        send(connection, data)
        if close:
            connection.shutdown(socket.SHUT_WR)
        return read_answer(connection)


def _body(stream: Any, headers: dict[str, str], status: int) -> bytes:
    if status < 200 or status in {204, 304}:
        return b""
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(stream.readline() or b"0", 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
        return body
    if "content-length" in headers:
        return bytes(stream.read(int(headers["content-length"])))
    return bytes(stream.read())
