"""Programs that are no Puna, on a loopback port: what a user may have there. Each a real server in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer


class OllamaLike(BaseHTTPRequestHandler):
    """Answers as Ollama does, as far as a command looks before it works; counts what else it is asked."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(b"Ollama is running", "text/plain; charset=utf-8")

    def do_GET(self) -> None:
        match self.path:
            case "/":
                self.do_HEAD()
            case "/api/version":
                self._answer(b'{"version":"0.12.3"}')
            case "/api/tags":
                self.asked.append(self.path)
                self._answer(b'{"models":[{"name":"theirs:latest","digest":"00","size":1}]}')
            case _:
                self.asked.append(self.path)
                self._answer(b"{}")

    def do_POST(self) -> None:
        self.asked.append(self.path)
        self._answer(b'{"response":"I am not Puna","done":true}\n')

    do_DELETE = do_POST

    def _answer(self, body: bytes, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


class Files(SimpleHTTPRequestHandler):
    """A plain HTTP server."""

    def log_message(self, *arguments: object) -> None:
        pass


class OtherPuna(OllamaLike):
    """A Puna of another version."""

    def end_headers(self) -> None:
        self.send_header("x-puna-version", "9.9.9")
        super().end_headers()


@contextmanager
def http(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Gives the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def ollama() -> Iterator[tuple[int, list[str]]]:
    """Gives the port, and the list of what it was asked beside who it is."""
    asked: list[str] = []
    with http(type("Counted", (OllamaLike,), {"asked": asked})) as port:
        yield port, asked


@contextmanager
def tcp(greet: Callable[[socket.socket], None]) -> Iterator[int]:
    """A program that does `greet` with each connection and then leaves it open."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        open_connections: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    open_connections.append(connection)
                    greet(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in open_connections:
                connection.close()
