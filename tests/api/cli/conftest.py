"""The installed command as a process of its own, against a real server with the scripted engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

PUNA = str(Path(sys.executable).with_name("puna"))


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Command:
    """Runs `puna` with an environment of its own: nothing of the user's is read or written."""

    environment: dict[str, str]
    directory: Path

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> Ended:
        """`stdin` None: there is none."""
        ended = subprocess.run(
            [PUNA, *arguments],
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            timeout=timeout,
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin.encode()}),
        )
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([PUNA, *arguments], env=self.environment, cwd=self.directory, **options)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Command]:
    """`command(host, **environment)`. No registry is called but those of the test."""

    def make(host: str, **more: str) -> Command:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PUNA_", "OLLAMA_"))}
        state = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_DATA_HOME": str(tmp_path / "data")}
        return Command(
            {**kept, **state, "PUNA_HOST": host, "PUNA_REGISTRIES": "127.0.0.1", "COLUMNS": "100", **more}, tmp_path
        )

    return make


@pytest.fixture
def puna(command: Callable[..., Command], server: Any) -> Command:
    """The command on the shared server."""
    return command(server.url)


@pytest.fixture
def answering() -> Iterator[Callable[[Mapping[str, Any]], str]]:
    """`answering({"GET /api/version": {...}})`: the URL of a server with these answers (JSON), and 404 else."""
    servers: list[ThreadingHTTPServer] = []

    def start(answers: Mapping[str, Any]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(answers))
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _handler(answers: Mapping[str, Any]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(f"{self.command} {self.path}")
            body = json.dumps({"error": "no such thing"} if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_POST = do_GET

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler
