"""Whatever bytes a client sends, to whatever path: never a 500, and the server still answers the next one.

Bytes go over real connections. How late the loop of the server came is measured inside of it, by what it did itself in
that time (other processes of this machine may keep it waiting).
"""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import BaseRoute, Route

from fakes.raw_http import connected, send
from puna.server.app import create_app

ROUTES = {
    "/v1/chat/completions": {
        "model": "tiny", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
        "max_tokens": 4, "logit_bias": {"1": 1}, "stop": ["x"], "seed": 1, "n": 1, "stream": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "string"}}},
    },
    "/v1/completions": {"model": "tiny", "prompt": ["Hi"], "max_tokens": 4, "echo": True, "logprobs": 1},
    "/v1/embeddings": {"model": "embedder", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 4},
    "/v1/messages": {
        "model": "tiny", "max_tokens": 4, "system": [{"type": "text", "text": "Brief."}], "stop_sequences": ["x"],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {}}]}],
        "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}], "tool_choice": {"type": "auto"},
        "thinking": {"type": "enabled", "budget_tokens": 2}, "output_config": {"effort": "low"}, "stream": False,
    },
    "/v1/messages/count_tokens": {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]},
    "/tokenize": {"model": "tiny", "prompt": "Hi", "add_special_tokens": True},
    "/detokenize": {"model": "tiny", "tokens": [1, 2, 3]},
    "/api/chat": {
        "model": "tiny", "messages": [{"role": "user", "content": "Hi", "images": []}], "stream": False,
        "options": {"num_predict": 4, "stop": ["x"], "temperature": 0.5}, "keep_alive": "5m", "think": False,
        "format": "json",
    },
    "/api/generate": {"model": "tiny", "prompt": "Hi", "raw": True, "stream": False, "options": {"num_predict": 4}},
    "/api/embed": {"model": "embedder", "input": ["a"], "truncate": True, "options": {"num_ctx": 100}},
    "/api/embeddings": {"model": "embedder", "prompt": "a"},
    "/api/show": {"model": "tiny", "verbose": True},
    "/api/copy": {"source": "tiny", "destination": "other"},
    "/api/create": {"model": "new", "from": "nothing", "parameters": {"stop": ["x"]}, "stream": False},
    "/api/delete": {"model": "nothing"},
    "/api/push": {"model": "tiny"},
    "/api/unload": {"model": "tiny", "all": False},
    "/api/estimate": {"model": "tiny", "options": {"num_ctx": 100}, "files": {}},
    "/api/verify": {"model": "tiny", "stream": False, "repair": False},
    "/v1/messages/batches": {"requests": [{"custom_id": "a", "params": {"model": "tiny", "max_tokens": 1,
        "messages": [{"role": "user", "content": "Hi"}]}}]},
    "/v1/messages/batches/x/cancel": {},
    "/v1/responses": {
        "model": "tiny",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        "max_output_tokens": 4, "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        "text": {"format": {"type": "json_schema", "name": "s", "schema": {"type": "string"}}}, "store": False,
        "reasoning": {"effort": "low"}, "instructions": "S", "metadata": {"a": "b"}, "previous_response_id": None,
    },
    "/v1/responses/input_tokens": {"model": "tiny", "input": "Hi"},
    "/v1/responses/compact": {"model": "tiny", "input": [{"role": "user", "content": "Hi"}]},
    "/v1/responses/x/cancel": {},
    "/v1/conversations": {"items": [{"type": "message", "role": "user", "content": "Hi"}], "metadata": {"a": "b"}},
    "/v1/conversations/x": {"metadata": {"a": "b"}},
    "/v1/conversations/x/items": {"items": [{"type": "message", "role": "user", "content": "Hi"}]},
    "/v1/decisions": {"model": "tiny", "input": "Hi", "choices": ["a", "b"]},
    "/v1/rerank": {"model": "embedder", "query": "a", "documents": ["a", "b"], "top_n": 1},
    "/v2/rerank": {"model": "embedder", "query": "a", "documents": ["a", {"text": "b"}], "top_n": 1},
    "/rerank": {"model": "embedder", "query": "a", "texts": ["a", "b"], "documents": ["a"]},
    "/v1/score": {"model": "embedder", "text_1": "a", "text_2": ["a", "b"]},
    "/score": {"model": "embedder", "text_1": "a", "text_2": ["a", "b"]},
    "/v1/tokenize": {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]},
    "/v1/detokenize": {"model": "tiny", "tokens": [1, 2, 3]},
    "/v1/chat/completions/x": {"metadata": {"a": "b"}},
    "/v1/uploads": {"filename": "a", "purpose": "batch", "bytes": 3, "mime_type": "text/plain"},
    "/v1/uploads/x/complete": {"part_ids": ["a"], "md5": "0"},
    "/v1/uploads/x/cancel": {},
    "/v1/batches": {"input_file_id": "x", "endpoint": "/v1/completions", "completion_window": "24h"},
    "/v1/batches/x/cancel": {},
    "/v1/requests/x/end_thinking": {},
}  # fmt: skip
FORMS = {
    "/v1/files": {"purpose": "batch", "file": "{}"},
    "/v1/uploads/x/parts": {"data": "abc"},
    "/v1/audio/transcriptions": {"model": "tiny", "file": "RIFF", "language": "en", "temperature": "0"},
    "/v1/audio/translations": {"model": "tiny", "file": "RIFF"},
}
"""Bodies that are forms."""

ELSEWHERE = {"/api/pull", "/api/search", "/api/offer", "/api/outdated", "/api/blobs/{digest}"}
"""What asks other machines, or takes any bytes at all."""

EXAMPLES = int(os.environ.get("PUNA_TEST_FUZZ", "100"))
"""More of them by hand: see `tests/fuzz`."""
PATHS = [*ROUTES, "/", "/health", "/api/tags", "/api/ps", "/api/version", "/v1/models", "/v1/models/tiny",
         "/api/status", "/api/blobs/sha256:" + "0" * 64, "/v1/x", "*", "http://localhost/api/tags"]  # fmt: skip
METHODS = [
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "CONNECT",
    "get",
    "M-SEARCH",
    "PURGE",
    "",
]
FIELDS = ["host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "upgrade",
          "expect", "authorization", "x-api-key", "origin", "sec-fetch-site", "range", "cookie", "x-puna-strict",
          "x-puna-local-file", "access-control-request-headers", "te", "trailer", "x-forwarded-for"]  # fmt: skip
PIECES = [
    "",
    "/",
    "//",
    "..",
    "%00",
    "%ff",
    "%2e%2e%2f",
    "é",
    "?",
    "?a=%",
    "#",
    "\\",
    "a" * 3000,
    "%F0%9F%98%80",
    ":",
    "@",
    "[",
    "%",
]
LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
    | st.sampled_from(["", "tiny", "\ud800", "\0", "a" * 5000, "../../x", "data:image/png;base64,", "http://[::1"])
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def server(serving, store: Path, tmp_path: Path) -> Iterator[object]:
    """One with a store of its own, since some of this makes models and removes them."""
    shutil.copytree(store, tmp_path / "models")
    with serving(models=tmp_path / "models") as own:
        yield own


@contextmanager
def prompt(server, most: float) -> Iterator[None]:
    """The loop of the server is not busy for more than `most` seconds in one go while this is entered.

    Without what its thread spends on collecting garbage: most of that is the examples', which live in this process.
    """
    worst, over, loop = 0.0, threading.Event(), server.loop
    thread, begun, collected = 0, 0.0, 0.0

    def collecting(phase: str, _: object) -> None:
        nonlocal begun, collected
        if threading.get_ident() == thread:
            if phase == "start":
                begun = time.thread_time()
            else:
                collected += time.thread_time() - begun

    def look(due: float, used: float) -> None:
        nonlocal worst, thread, collected
        thread = threading.get_ident()
        worst = max(worst, min(loop.time() - due, time.thread_time() - used - collected))
        collected = 0.0
        if not over.is_set():
            loop.call_later(0.005, look, loop.time() + 0.005, time.thread_time())

    gc.callbacks.append(collecting)
    loop.call_soon_threadsafe(lambda: look(loop.time(), time.thread_time()))
    try:
        yield
    finally:
        over.set()
        gc.callbacks.remove(collecting)
    assert worst < most


def statuses(port: int, data: bytes) -> list[int]:
    """The status lines of all that comes back, until the server closes or has nothing more to say."""
    received = b""
    with connected(port, timeout=30) as connection:
        send(connection, data)
        try:
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
        except (ConnectionResetError, OSError):
            pass
    assert not received or received.startswith(b"HTTP/1.1 "), received[:100]
    if b"the engine broke the form that was asked for" in received:
        return []  # a script keeps to no schema, which a real engine does
    return [int(line.split()[1]) for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def fine(server, data: bytes) -> None:
    assert not [status for status in statuses(server.port, data) if status >= 500 and status not in {503, 529}], data[
        :2000
    ]


def mutated(value: object, draw) -> object:
    """The body with something in it replaced, left out or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        match draw(st.integers(0, 5)):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return value | {draw(st.text(max_size=10)): draw(VALUES)}
            case _:
                return value | {key: mutated(value[key], draw)}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], mutated(value[at], draw), *value[at:][draw(st.integers(0, 1)) :]]
    return draw(VALUES)


@st.composite
def bodies(draw) -> tuple[str, bytes]:
    path = draw(st.sampled_from(sorted(ROUTES)))
    value = ROUTES[path]
    for _ in range(draw(st.integers(1, 3))):
        value = mutated(value, draw)
    text = json.dumps(value).encode()
    if not draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=4)) + text[at + draw(st.integers(0, 3)) :]
    return path, text


HEAD_VALUES = st.sampled_from([
    "localhost", "1", "0", "-1", "99999999999999999999", "chunked", "gzip", "identity, gzip", "close", "keep-alive",
    "Upgrade", "h2c", "websocket", "100-continue", "Bearer x", "null", "cross-site", "true", "/etc/passwd", "é", "",
    "\t", "a" * 9000, "evil.com@localhost", "%00", "bytes=0-1",
]) | st.text(st.characters(max_codepoint=255), max_size=12)  # fmt: skip


@st.composite
def requests(draw) -> bytes:
    target = draw(st.sampled_from(PATHS)) + "".join(draw(st.lists(st.sampled_from(PIECES), max_size=3)))
    version = draw(st.sampled_from(["HTTP/1.1"] * 6 + ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "", "http/1.1"]))
    method = draw(st.sampled_from(METHODS))
    body = draw(
        st.sampled_from([b"", b"{}", b"[]", b'{"model":"tiny"}', b"5\r\nhello\r\n0\r\n\r\n"]) | st.binary(max_size=30)
    )
    lines = [f"{method} {target} {version}"]
    if draw(st.integers(0, 5)):
        lines.append("Host: localhost")
    if draw(st.integers(0, 2)):
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{draw(st.sampled_from(FIELDS))}: {draw(HEAD_VALUES)}" for _ in range(draw(st.integers(0, 4)))]
    head = "\r\n".join([*lines, "", ""]).encode("utf-8" if draw(st.booleans()) else "latin-1", "replace")
    if not draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(head)))
        head = head[:at] + draw(st.binary(max_size=5)) + head[at:]
    return head + body


SLOW = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.timeout(0 if EXAMPLES > 1000 else 300)
def test_no_head_breaks_the_server(server, capfd):
    @SLOW
    @given(requests())
    def whatever(data: bytes) -> None:
        fine(server, data)

    with prompt(server, 0.1):
        whatever()
    assert server.get("/api/version").status == 200
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.timeout(0 if EXAMPLES > 1000 else 300)
def test_no_body_breaks_the_server(server, capfd):
    @SLOW
    @given(bodies())
    def whatever(request: tuple[str, bytes]) -> None:
        path, body = request
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        fine(server, head.encode() + body)

    with prompt(server, 0.1):
        whatever()
    assert server.get("/api/version").status == 200
    assert "Traceback" not in capfd.readouterr().err


BROKE_ONCE = [
    ("/v1/conversations/x/items", {"items": [{"type": [], "role": "user", "content": "Hi"}]}),
    ("/v1/chat/completions", ROUTES["/v1/chat/completions"] | {"tool_choice": {"type": ["function"]}}),
    ("/v1/responses", ROUTES["/v1/responses"] | {"tool_choice": {"type": {}}}),
]


@pytest.mark.parametrize(("path", "body"), BROKE_ONCE)
def test_what_broke_it_once_does_not_again(server, path, body):
    assert server.post(path, json.dumps(body).encode()).status == 400


def test_every_route_is_tried(server):
    def posted(routes: Sequence[BaseRoute]) -> set[str]:
        return {route.path for route in routes if isinstance(route, Route) and "POST" in (route.methods or ())}

    tried = {re.sub(r"/x(?=/|$)", "/{id}", path) for path in (*ROUTES, *FORMS)} | ELSEWHERE
    assert not posted(create_app(server.services).routes) - tried, "name a body in ROUTES, or say in ELSEWHERE why none"


@st.composite
def forms(draw) -> tuple[str, bytes]:
    """Parts as they should be, and then not."""
    path = draw(st.sampled_from(sorted(FORMS)))
    fields = draw(
        st.permutations([*FORMS[path].items(), ("odd", "x"), *draw(st.lists(st.sampled_from([*FORMS[path].items()])))])
    )
    text = b""
    for name, value in fields[: draw(st.integers(0, len(fields)))]:
        head = f'content-disposition: form-data; name="{name}"' + '; filename="a.jsonl"' * (name in ("file", "data"))
        text += f"--b\r\n{head}\r\n\r\n{value}\r\n".encode()
    text += b"--b--\r\n"
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=6)) + text[at + draw(st.integers(0, 9)) :]
    return path, text


@pytest.mark.timeout(0 if EXAMPLES > 1000 else 300)
def test_no_form_breaks_the_server(server, capfd):
    @SLOW
    @given(forms())
    def whatever(request: tuple[str, bytes]) -> None:
        path, body = request
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
        fine(server, head.encode() + b"content-type: multipart/form-data; boundary=b\r\n\r\n" + body)

    whatever()
    assert server.get("/api/version").status == 200
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.timeout(0 if EXAMPLES > 1000 else 300)
def test_no_bytes_break_the_server(server, capfd):
    @SLOW
    @given(st.binary(max_size=200))
    def whatever(data: bytes) -> None:
        fine(server, data)

    with prompt(server, 0.1):
        whatever()
    assert "Traceback" not in capfd.readouterr().err
