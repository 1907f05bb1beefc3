"""What every request passes before its route, from the outside in: Identify, `ending`, Origins, Hosts, `keys`,
`callers`, BodyLimit, `gate`.

Pure ASGI, so that streams flow through untouched. Each raises a PunaError; Identify, the outermost, renders it.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
import time
from collections.abc import Iterable, Sequence

import psutil
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from puna.errors import Cancelled, DeadlineExceeded, Forbidden, Overloaded, PunaError, ServerStopping, SourceError
from puna.inference.tally import opened
from puna.server.allowance import Allowance, Bodies
from puna.server.contract.report import HEADERS as REPORT_HEADERS
from puna.server.errors import error_response, internal_error, speaks_anthropic
from puna.server.keys import OPEN_PATHS
from puna.server.metrics import Metrics
from puna.settings import IDENTITY, SettingError

_log = structlog.stdlib.get_logger(__name__)

_UPLOADS = re.compile("/api/blobs/.*|/v1/files|/v1/uploads/[^/]+/parts", re.DOTALL)
"""Paths whose bodies go to the disk as they come, within limits of their own."""

_SLASHES = re.compile("/{2,}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Identify:
    """Gives each request an id, times it, counts it, logs it, and turns whatever was raised into an answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Short, since people read it in the log and look it up there.
        request_id = f"req_{secrets.token_hex(6)}"
        # `response_headers`: what any layer further in wants on the answer, errors included, until it is `responded`.
        # `failed`: the code of an error that was told, where it was not raised to here.
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

        path = scope["path"] = tidy_path(scope["path"])
        asked = Headers(scope=scope)
        if speaks_anthropic(path, asked):
            # What its clients call the same.
            shared["request-id"] = request_id
        try:
            await self._app(scope, receive, identified)
        except (Cancelled, ClientDisconnect):
            status, state["failed"] = Cancelled.status, "cancelled"
        except PunaError as error:
            state["failed"] = error.code or error.type
            if error.status >= 500 and not isinstance(error, ServerStopping | DeadlineExceeded):
                _log.error("request failed", error=str(error), code=error.code, exc_info=_unknown_cause(error))
            if status == 0:
                await error_response(error, path, asked, request_id)(scope, receive, identified)
        except Exception as error:  # noqa: BLE001 - the outermost border: a fault of ours is logged and answered as one
            told = internal_error(request_id, error)
            state["failed"] = told.code or told.type
            scarce = isinstance(told, Overloaded)
            _log.error("request failed", error=str(error), code=told.code, exc_info=None if scarce else error)
            if status == 0:
                await error_response(told, path, asked, request_id)(scope, receive, identified)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", None)
            self._metrics.answered(scope["method"], route, status, seconds, tally)
            if "failed" in state:
                self._metrics.failed(state["failed"])
            client = scope.get("client")
            # Whether it runs is asked before all else by Ollama's command and ours.
            probe = scope["method"] == "HEAD" and path == "/"
            (_log.debug if probe else _log.info)(
                "request",
                method=scope["method"],
                path=path,
                status=status,
                ms=round(seconds * 1000, 1),
                client=client[0] if client else "local",
                **tally.fields,
            )
            structlog.contextvars.unbind_contextvars("request_id")
            allowance: Allowance | None = state.get("allowance")
            if allowance is not None:
                allowance.let_go()


def tidy_path(path: str) -> str:
    """The path without what many base URLs put into it: doubled slashes, and one at the end."""
    return _SLASHES.sub("/", path).rstrip("/") or "/"


# --------------------------------------------------------------------------------------------------------- browsers

_LOCAL_ORIGINS = (
    *(f"{scheme}://{host}{port}" for scheme in ("http", "https")
      for host in ("localhost", "127.0.0.1", "0.0.0.0", "[::1]") for port in ("", ":*")),
    "app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*",
)  # fmt: skip

_ORIGIN_SCHEMES = (
    "http", "https", "chrome-extension", "safari-extension", "moz-extension", "ms-browser-extension",
)  # fmt: skip

_ALLOWED_HEADERS = (
        "Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "X-Api-Key", "Anthropic-Version",
        "Anthropic-Beta", "Openai-Beta", "Openai-Organization", "Openai-Project", "X-Client-Request-Id",
        "X-Puna-Strict", "X-Puna-Deadline",
        *(f"X-Stainless-{name}" for name in (
            "Arch", "Async", "Custom-Poll-Interval", "Helper-Method", "Lang", "Os", "Package-Version", "Poll-Helper",
            "Retry-Count", "Runtime", "Runtime-Version", "Timeout",
        )),
)  # fmt: skip
"""Named to a preflight that asks for nothing; one that asks is given what it asks for, too."""

_PREFLIGHT = {
    "access-control-allow-methods": "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
    "access-control-max-age": "43200",
    "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
}

_EXPOSED = ", ".join(
    ("x-request-id", "request-id", "openai-processing-ms", "retry-after", "x-should-retry", IDENTITY, *REPORT_HEADERS)
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


def _unknown_cause(error: PunaError) -> BaseException | None:
    """What an error came of, where a traceback tells more than its message: not of what the system refused, nor of what
    another server sent.
    """
    cause: BaseException | None = error
    while isinstance(cause, PunaError):
        cause = cause.__cause__
    told = isinstance(error, SourceError) or isinstance(cause, OSError) or error.code == "disk_full"
    return None if told else cause


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
        foreign = origin is None and headers.get("sec-fetch-site") == "cross-site"
        if foreign and not self._any and scope["path"] not in OPEN_PATHS:
            # An image or a form of a page from elsewhere: a browser names no origin for these.
            raise Forbidden("Pages of other sites may not call this server: see PUNA_ORIGINS.")
        if origin is None or origin.partition("://")[2] == headers.get("host"):
            await self._app(scope, receive, send)
            return
        if not self._any and not any(pattern.fullmatch(origin) for pattern in self._allowed):
            raise Forbidden(f"The origin '{origin}' is not allowed: add it to PUNA_ORIGINS.")
        granted = "*" if self._any else origin
        if scope["method"] == "OPTIONS":
            answer = Response(status_code=204, headers=_preflight(headers, granted))
            await answer(scope, receive, send)
            return

        shared = {"access-control-allow-origin": granted, "access-control-expose-headers": _EXPOSED}
        if not self._any:
            shared["vary"] = "Origin"
        scope["state"]["response_headers"].update(shared)
        await self._app(scope, receive, send)


def _preflight(headers: Headers, granted: str) -> dict[str, str]:
    """What a browser may do. The origin is trusted, so any header it asks for is allowed by its name."""
    asked = (name.strip() for name in headers.get("access-control-request-headers", "").split(","))
    names = {name.lower(): name for name in (*asked, *_ALLOWED_HEADERS) if _TOKEN.fullmatch(name)}.values()
    answer = {
        **_PREFLIGHT,
        "access-control-allow-origin": granted,
        "access-control-allow-headers": ",".join(names),
    }
    if headers.get("access-control-request-private-network") == "true":
        answer["access-control-allow-private-network"] = "true"
    return answer


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


_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]*)(?::[0-9]*)?")


def is_own_host(header: str) -> bool:
    """Whether a Host header (a name or an address, with or without port, and nothing else) names this machine."""
    match = _HOST.fullmatch(header)
    if match is None:
        return False
    host = match[1].lower().strip("[]").removesuffix(".")
    # No browser leaves it empty.
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


# ----------------------------------------------------------------------------------------------------------- bodies


class BodyLimit:
    """Refuses a body over `limit` bytes, by its declared length or once it has grown past it, and any body while all
    requests together hold `together` bytes. Uploads are exempt: they go to the disk as they come.

    The request's Allowance is in `scope["state"]["allowance"]`, for those who unpack the body.
    """

    def __init__(self, app: ASGIApp, limit: int, together: int) -> None:
        self._app = app
        self._limit = limit
        self._bodies = Bodies(together)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _UPLOADS.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        allowance = Allowance(self._limit, self._bodies)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > self._limit:
            raise allowance.too_large()
        count = allowance.meter()

        async def limited() -> Message:
            message = await receive()
            # What comes after an upgrade are messages, which whoever reads them counts.
            if (body := message.get("body")) and not scope["state"].get("upgraded"):
                count(len(body))
            return message

        scope["state"]["allowance"] = allowance
        try:
            await self._app(scope, limited, send)
        except Exception as error:
            allowance.keep(error)  # whose frames hold all that there was
            raise
        finally:
            allowance.give_back()
