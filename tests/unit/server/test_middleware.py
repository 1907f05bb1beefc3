from __future__ import annotations

import errno
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from puna.errors import Cancelled, NotFound, RunnerDied, SourceError, StateError, StoreError
from puna.server.metrics import Metrics
from puna.server.middleware import Identify, is_loopback, is_own_host, parse_origins
from puna.settings import SettingError


@pytest.mark.parametrize("origin", ["example.com", "ftp://x", "http://*.*", "app://x"])
def test_origins_that_cannot_be_read(origin):
    with pytest.raises(SettingError, match="PUNA_ORIGINS"):
        parse_origins([origin])


def allowed(origin: str, *origins: str) -> bool:
    return any(pattern.fullmatch(origin) for pattern in parse_origins(origins))


def test_origins():
    assert allowed("https://a.example.com", "https://*.example.com")
    assert allowed("HTTPS://EXAMPLE.COM", "https://example.com")
    assert not allowed("https://example.com.evil", "https://example.com")
    assert not allowed("https://exampleXcom", "https://example.com")
    assert allowed("http://localhost:1234")
    assert not allowed("http://localhost:")


@pytest.mark.parametrize(
    ("host", "is_one"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("", False),
                         ("0.0.0.0", False), ("::", False), ("192.168.0.1", False), ("example.com", False)]
)  # fmt: skip
def test_loopback(host, is_one):
    assert is_loopback(host) is is_one


@pytest.mark.parametrize("host", ["", "localhost:80", "LOCALHOST", "10.1.2.3", "[fe80::1]:80", "0.0.0.0", "a.local"])
def test_own_hosts(host):
    assert is_own_host(host)


@pytest.mark.parametrize("host", ["example.com", "1.1.1.1:80", "localhost.com", "[::1", "a.internal.evil"])
def test_hosts_of_others(host):
    assert not is_own_host(host)


class Wire:
    """One request and what was sent for it."""

    def __init__(self, path: str) -> None:
        self.scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def run(self, app: Any) -> None:
        await Identify(app, Metrics())(self.scope, self.receive, self.send)


@pytest.mark.parametrize(("path", "start"), [("/v1/x", b'{"error":{"message":'), ("/api/x", b'{"error":"The server')])
async def test_a_fault_of_ours_is_a_500_that_tells_only_its_id(path, start):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("secret")

    wire = Wire(path)
    await wire.run(app)
    head, body = wire.sent
    assert head["status"] == 500
    headers = dict(head["headers"])
    assert headers[b"x-should-retry"] == b"false"
    assert headers[b"x-request-id"] in body["body"]
    assert body["body"].startswith(start)
    assert b"secret" not in body["body"]


async def test_a_client_that_went_away_gets_nothing():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise Cancelled("gone")

    wire = Wire("/v1/x")
    await wire.run(app)
    assert wire.sent == []


async def test_headers_of_inner_layers_are_on_errors_too():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["response_headers"]["x-note"] = "1"
        raise NotFound("nothing")

    wire = Wire("/v1/x")
    await wire.run(app)
    assert wire.sent[0]["status"] == 404
    assert dict(wire.sent[0]["headers"])[b"x-note"] == b"1"


def raising(error: BaseException, *causes: BaseException) -> Any:
    """An app that ends with `error`, which came of the first of `causes`, and that of the next."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for one, cause in pairwise((error, *causes)):
            one.__cause__ = cause
        raise error

    return app


@pytest.mark.parametrize(
    ("app", "traced"),
    [
        (raising(StoreError("writing"), OSError(errno.ENOSPC, "No space left on device")), False),
        (raising(StateError("keeping"), StoreError("writing"), OSError(errno.EFBIG, "File too large")), False),
        (raising(StateError("keeping", code="disk_full"), RuntimeError("disk is full")), False),
        (raising(RunnerDied("it ended"), ConnectionResetError("reset")), False),
        (raising(OSError(errno.EMFILE, "Too many open files")), False),
        (raising(SourceError("its manifest is not JSON"), ValueError("Expecting value")), False),
        (raising(StateError("keeping"), RuntimeError("malformed")), True),
        (raising(ZeroDivisionError("a fault of ours")), True),
    ],
)
async def test_what_others_refused_or_sent_is_logged_in_one_line(app, traced):
    with capture_logs() as log:
        await Wire("/v1/x").run(app)
    (failed,) = (entry for entry in log if entry["event"] == "request failed")
    assert bool(failed["exc_info"]) is traced
