"""Writes wheels, and serves them as a package index does, at the speed the test wants."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from puna.store.library import Library


def write_wheel(
    directory: Path,
    files: Mapping[str, bytes],
    *,
    name: str = "some_model",
    version: str = "1.0",
    metadata: str = "License: MIT\n",
    compression: int = zipfile.ZIP_DEFLATED,
) -> Path:
    """`files` lie in the package's directory, but for those that name their own."""
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: >=99\nRequires-Dist: absent\n"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for filename, data in files.items():
            archive.writestr(filename if "/" in filename else f"{name}/{filename}", data)
        archive.writestr(f"{info}/METADATA", head + metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def left_over(library: Library) -> list[str]:
    """Files of the store, but for whole blobs and manifests."""
    return [path.name for path in (library.root / "downloads").rglob("*")] + [
        path.name for path in library.root.rglob("*") if path.is_file() and path.suffix == ".tmp"
    ]


@dataclass
class Index:
    """`half`: set when half of a wheel has been sent; the rest waits for `go`. `downloads`: how many were begun."""

    url: str
    half: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    downloads: int = 0


@contextmanager
def serve_index(wheel: Path) -> Iterator[Index]:
    """An index of one wheel on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.wheel = wheel  # type: ignore[attr-defined]
    server.index = Index(f"http://127.0.0.1:{server.server_port}/simple")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.index  # type: ignore[attr-defined]
    finally:
        server.index.go.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        wheel: Path = self.server.wheel  # type: ignore[attr-defined]
        if self.path.endswith(wheel.name):
            self._send_wheel(wheel.read_bytes())
        else:
            self._head("text/html", page := f'<a href="/{wheel.name}">{wheel.name}</a>'.encode())
            self.wfile.write(page)

    def _send_wheel(self, data: bytes) -> None:
        index: Index = self.server.index  # type: ignore[attr-defined]
        index.downloads += 1
        self._head("application/octet-stream", data)
        try:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            index.half.set()
            index.go.wait()
            self.wfile.write(data[len(data) // 2 :])
        except OSError:
            # The client was stopped, as the test wanted.
            return

    def _head(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test's output is its own."""
