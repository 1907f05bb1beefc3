"""What every request passes before its route, from the outside in: Identify, Origins, Hosts, Keys, BodyLimit.

Pure ASGI, so that streams flow through untouched. Each raises a PunaError; Identify, the outermost, renders it.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
import time
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

import psutil
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from puna.errors import Cancelled, Forbidden, PayloadTooLarge, PunaError, ServerStopping, Unauthorized
from puna.inference.tally import opened
from puna.server.contract.report import HEADERS as REPORT_HEADERS
from puna.server.errors import error_response, internal_error
from puna.settings import IDENTITY, SettingError

_log = structlog.stdlib.get_logger(__name__)

_OPEN_PATHS = frozenset({"/", "/health"})
_UPLOADS = "/api/blobs/"


class Identify:
    """Gives each request an id, times it, logs it, and turns whatever was raised into an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Short, since people read it in the log and look it up there.
        request_id = f"req_{secrets.token_hex(6)}"
        # `response_headers`: what any layer further in wants on the answer, errors included, until it is `responded`.
        shared: dict[str, str] = {}
        state = scope.setdefault("state", {})
        # `send_body`: past the layers further in, which look at nothing but the start of an answer.
        state.update(request_id=request_id, response_headers=shared, responded=False, send_body=send)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        tally = opened()
        began = time.perf_counter()
        status = 0

        async def identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(round((time.perf_counter() - began) * 1000))
                headers.update(shared)
                state["responded"] = True
            await send(message)

        path: str = scope["path"]
        try:
            await self._app(scope, receive, identified)
        except Cancelled as error:
            status = error.status
        except PunaError as error:
            if error.status >= 500 and not isinstance(error, ServerStopping):
                _log.error("request failed", error=str(error), code=error.code, exc_info=error.__cause__)
            if status == 0:
                await error_response(error, path)(scope, receive, identified)
        except Exception:  # noqa: BLE001 - the outermost border: a fault of ours is logged and answered as one
            _log.exception("request failed")
            if status == 0:
                await error_response(internal_error(request_id), path)(scope, receive, identified)
        finally:
            client = scope.get("client")
            # Whether it runs is asked before all else by Ollama's command and ours.
            probe = scope["method"] == "HEAD" and path == "/"
            (_log.debug if probe else _log.info)(
                "request",
                method=scope["method"],
                path=path,
                status=status,
                ms=round((time.perf_counter() - began) * 1000, 1),
                client=client[0] if client else "local",
                **tally.fields,
            )
            structlog.contextvars.unbind_contextvars("request_id")


# --------------------------------------------------------------------------------------------------------- browsers

_LOCAL_ORIGINS = (
    *(f"{scheme}://{host}{port}" for scheme in ("http", "https")
      for host in ("localhost", "127.0.0.1", "0.0.0.0", "[::1]") for port in ("", ":*")),
    "app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*",
)  # fmt: skip

_ORIGIN_SCHEMES = (
    "http", "https", "chrome-extension", "safari-extension", "moz-extension", "ms-browser-extension",
)  # fmt: skip

_PREFLIGHT = {
    "access-control-allow-methods": "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
    "access-control-allow-headers": ",".join((
        "Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "X-Api-Key", "Anthropic-Version",
        "Anthropic-Beta", "Openai-Beta", "Openai-Organization", "Openai-Project", "X-Client-Request-Id",
        "X-Puna-Strict",
        *(f"X-Stainless-{name}" for name in (
            "Arch", "Async", "Custom-Poll-Interval", "Helper-Method", "Lang", "Os", "Package-Version", "Poll-Helper",
            "Retry-Count", "Runtime", "Runtime-Version", "Timeout",
        )),
    )),
    "access-control-max-age": "43200",
    "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
}  # fmt: skip

_EXPOSED = ", ".join(
    ("x-request-id", "openai-processing-ms", "retry-after", "x-should-retry", IDENTITY, *REPORT_HEADERS)
)


def parse_origins(origins: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    """Patterns of the origins that may call, those of this machine included. SettingError if one cannot be read.

    One `*` an entry, for any text; after a colon it stands for a port, so that `http://localhost:*` is no prefix of
    another host.
    """
    for origin in origins:
        scheme, separator, _ = origin.partition("://")
        named = bool(separator) and scheme.lower() in _ORIGIN_SCHEMES
        if origin.count("*") > 1 or ("*" not in origin and not named):
            raise SettingError("PUNA_ORIGINS", origin, "origins such as http://example.com or chrome-extension://*")
    return tuple(_origin_pattern(origin) for origin in (*origins, *_LOCAL_ORIGINS))


def _origin_pattern(origin: str) -> re.Pattern[str]:
    before, star, after = origin.partition("*")
    anything = r"\d+" if before.endswith(":") else r".*"
    return re.compile(re.escape(before) + (anything if star else "") + re.escape(after), re.IGNORECASE)


class Origins:
    """Cross-origin rules for browsers: pages of this machine may call, others when the settings name them."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._any = "*" in origins
        self._allowed = parse_origins(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is None or origin.partition("://")[2] == headers.get("host"):
            await self._app(scope, receive, send)
            return
        if not self._any and not any(pattern.fullmatch(origin) for pattern in self._allowed):
            raise Forbidden(f"The origin '{origin}' is not allowed: add it to PUNA_ORIGINS.")
        granted = "*" if self._any else origin
        if scope["method"] == "OPTIONS":
            answer = Response(status_code=204, headers={**_PREFLIGHT, "access-control-allow-origin": granted})
            await answer(scope, receive, send)
            return

        shared = {"access-control-allow-origin": granted, "access-control-expose-headers": _EXPOSED}
        if not self._any:
            shared["vary"] = "Origin"
        scope["state"]["response_headers"].update(shared)
        await self._app(scope, receive, send)


class Hosts:
    """Defence of a loopback server against DNS rebinding: the Host must be a name or an address of this machine."""

    def __init__(self, app: ASGIApp, listening: str) -> None:
        self._app = app
        self._checked = is_loopback(listening)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._checked:
            host = Headers(scope=scope).get("host", "")
            if not is_own_host(host):
                raise Forbidden(f"The host '{host}' is not a name of this machine.")
        await self._app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether a server that listens on `host` is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


_OWN_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""With a port behind them, what nearly all clients send; there is nothing to parse."""


def is_own_host(header: str) -> bool:
    """Whether a Host header (with or without port) names this machine."""
    if header.rpartition(":")[0] in _OWN_HOSTS:
        return True
    try:
        host = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    if host in {"", "localhost"} or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == socket.gethostname().lower()
    return address.is_loopback or address.is_private or address.is_unspecified or host in set(_own_addresses())


def _own_addresses() -> Iterable[str]:
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            yield address.address.partition("%")[0]


# ------------------------------------------------------------------------------------------------------ keys, sizes


class Keys:
    """Asks for one of the operator's keys, if he set any. `/` and `/health` stay open, for probes."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = tuple(key.encode() for key in keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._keys and scope["path"] not in _OPEN_PATHS:
            self._check(Headers(scope=scope))
        await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not key:
            raise Unauthorized(
                "You didn't provide an API key. Send one of this server's keys as 'Authorization: Bearer KEY'."
            )
        # Every key is compared, in constant time: how long this takes tells nothing about them.
        matches = [hmac.compare_digest(key.encode(), known) for known in self._keys]
        if True not in matches:
            raise Unauthorized("Incorrect API key provided.")


class BodyLimit:
    """Refuses a body over `limit` bytes, by its declared length or once it has grown past it. Uploads are exempt."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(_UPLOADS):
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > self._limit:
            raise self._refusal()
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise self._refusal()
            return message

        await self._app(scope, limited, send)

    def _refusal(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The request body is larger than {self._limit} bytes (PUNA_MAX_BODY).")
