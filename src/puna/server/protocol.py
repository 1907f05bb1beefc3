"""One connection: uvicorn's protocol over httptools, with bounds where that has none.

A head is gathered here and given to the parser whole, so that it is measured before anything is built from it: at most
`MAX_HEAD` bytes, `MAX_FIELDS` fields and `MAX_TARGET` bytes of URL. Offers to upgrade are hidden from the parser, which
would take the body for another protocol's; a route that takes one answers with 101, and has the connection from then.
Heads and bodies have deadlines. A client that closes its sending side gets its answer; one that cuts its body gets a
400, if it still listens. A connection that ends with an error is closed once the client has had time to read it.

All that Puna overrides of uvicorn's insides is in this file (see docs/decisions/http-door.md).
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools
import structlog
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from puna.errors import (
    HeadTooLarge,
    InvalidRequest,
    MethodNotAllowed,
    Overloaded,
    PunaError,
    RequestTimeout,
    UrlTooLong,
)
from puna.server.errors import error_response

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveEvent, ASGISendEvent, HTTPResponseBodyEvent
    from uvicorn.config import Config
    from uvicorn.server import ServerState

MAX_HEAD = 64 * 1024
"""Bytes of a request's head, and of the empty lines before it; also of what a chunked body may have between two bytes
of its content."""
MAX_FIELDS = 256
"""Header fields of a request."""
MAX_TARGET = 16 * 1024
"""Bytes of a request's URL."""
MIN_RATE = 1024
"""Bytes a second that a body must come with on average, after the read timeout has passed once."""
LINGER_SECONDS = 3.0
"""How long a client that still sends may go on, unread, after its answer: closed at once, it would not see it."""

_MAX_BEHIND = 1024 * 1024
_SLICE = 16 * 1024
"""Bytes of a body in chunks that are parsed in one turn of the event loop: each of them may cost as much as a chunk."""
_TURN = 64 * 1024
"""Bytes of an answer that wait for the end of a turn of the event loop, at most."""
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_METHOD = re.compile(rb"[A-Za-z_-]{0,32}")
_UPGRADE = re.compile(rb"(?im)^upgrade[ \t]*:")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_PROBES = (0.1, 0.1, 0.3)
_STATUS_LINE = b"HTTP/1.1 "
"""What every answer begins with, so that a byte of it can go ahead of the rest."""
_KEEP_ALIVE_SECONDS = 5

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection, and all of them together, may take.

    `connections`: open at once. `read_timeout`: seconds for a head, and for a body before its rate counts.
    `write_timeout`: seconds for which a client may take nothing of what is written for it.
    """

    connections: int
    read_timeout: float
    write_timeout: float


def check_head(head: bytes) -> PunaError | None:
    """What is wrong with the size of a head, or of the beginning of one."""
    line = head.find(b"\n")
    target = head[: line if line >= 0 else MAX_HEAD].partition(b" ")[2]
    if len(target) > MAX_TARGET + len(b" HTTP/1.1\r"):
        return UrlTooLong(f"The URL of this request is longer than {MAX_TARGET} bytes.")
    if len(head) > MAX_HEAD:
        return HeadTooLarge(f"The head of this request is larger than {MAX_HEAD} bytes.")
    if head.count(b"\n") > MAX_FIELDS + 2:
        return HeadTooLarge(f"This request has more than {MAX_FIELDS} header fields.")
    return None


def _begins_request(head: bytes) -> bool:
    """Whether these bytes can be the beginning of a request: a client that speaks TLS is told at once."""
    method = _METHOD.match(head)
    end = method.end() if method else 0
    return end == len(head) or (end > 0 and head[end] == 0x20)


class _Cycle(RequestResponseCycle):
    """A request and its answer. `fault`: why the body will not come; raised to whoever reads it."""

    fault: PunaError | None = None
    upgraded = False
    """The connection is this request's for good: what comes is more of its body, what is sent goes out as it is."""
    _until_close = False

    def fail(self, fault: PunaError) -> None:
        self.fault = fault
        self.keep_alive = False
        self.message_event.set()

    async def receive(self) -> ASGIReceiveEvent:
        message = await super().receive()
        if self.fault is not None and message["type"] == "http.request":
            raise self.fault
        return message

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.body" and self._goes_on(message):
            return
        if message["type"] == "http.response.start":
            if self.waiting_for_100_continue and self.more_body:
                # The client was never told to send its body: nobody could say where its next request begins.
                self.keep_alive = False
            sized = any(name == b"content-length" for name, _ in message["headers"])
            if self.scope["http_version"] != "1.1" and not sized:
                # It knows no chunks: what ends its answer is the end of the connection.
                self.chunked_encoding, self._until_close = False, True
            if message["status"] == 101:
                self.chunked_encoding, self._until_close, self.upgraded = False, True, True
                await super().send(message)
                self.keep_alive = False  # after the head, which would say it
                return
        elif self._until_close and message["type"] == "http.response.body":
            self.expected_content_length = len(message.get("body", b"")) + bool(message.get("more_body", False))
        await super().send(message)

    def _goes_on(self, message: HTTPResponseBodyEvent) -> bool:
        """One more chunk of a stream, written here where nothing stands in the way: there is one for each token."""
        body = message["body"]
        if not body or not message.get("more_body") or not self.chunked_encoding or not self.response_started:
            return False
        if self.disconnected or self.flow.write_paused or self.scope["method"] == "HEAD":
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True


class _Flow(FlowControl):
    """Whether the connection is read: not while its bytes so far wait to be parsed, whatever else allows it."""

    _holds = False
    _full = False

    def pause_reading(self) -> None:
        self._full = True
        super().pause_reading()

    def resume_reading(self) -> None:
        self._full = False
        if not self._holds:
            super().resume_reading()

    def hold(self) -> None:
        self._holds = True
        super().pause_reading()

    def release(self) -> None:
        self._holds = False
        if not self._full:
            super().resume_reading()


class _Channel:
    """What an answer writes to: what it writes in one turn of the event loop is one write, for each costs more than
    the few tokens in it. `close` lets the client read to the end.
    """

    def __init__(self, transport: asyncio.Transport, end: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._end = end
        self._loop = loop
        self._ahead = 0
        self._waiting: list[bytes] = []
        self._size = 0
        self.is_closing = transport.is_closing

    def write_ahead(self) -> bool:
        """One byte more of the beginning that the next answer will have. False: there is none left."""
        if self._ahead == len(_STATUS_LINE):
            return False
        self._transport.write(_STATUS_LINE[self._ahead : self._ahead + 1])
        self._ahead += 1
        return True

    def write(self, data: bytes) -> None:
        if self._ahead:
            data, self._ahead = data[self._ahead :], 0
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)
        self._size += len(data)
        if self._size > _TURN:
            self.flush()

    def flush(self) -> None:
        """What waits goes out before anything else is done with the connection."""
        if self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            if not self._transport.is_closing():  # uvloop raises where others let it pass
                self._transport.write(data)

    def close(self) -> None:
        self.flush()
        self._end()


def _keep_alive(transport: asyncio.Transport) -> None:
    """Let the system ask now and then whether the other end is there: what was closed answers so after a minute."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family == getattr(socket, "AF_UNIX", None):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), _KEEP_ALIVE_SECONDS)


class Protocol(HttpToolsProtocol):
    """One client's connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._head = bytearray()
        self._blank = 0
        """Bytes of empty lines before it."""
        self._behind = b""
        """What came behind a request that is not answered yet."""
        self._rest = b""
        """What waits for the next turn of the event loop, behind a slice of a body."""
        self._in_body = False
        self._left: int | None = None
        """Bytes of the body that are still to come; None: chunks."""
        self._received = 0
        self._overhead = 0
        self._reading_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
        """Runs while more is written than the client has taken."""
        self._fields_done = False
        self._unfit: PunaError | None = None
        self._astray = False
        self._ending = False
        """The last answer is written; what still comes is thrown away."""
        self._eof = False
        self._probed = 0

    # ------------------------------------------------------------------------------------------------- connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = self._flow = _Flow(transport)
        self._channel = _Channel(transport, self._finish, self.loop)
        if len(self.connections) > self._limits.connections:
            self._refuse(Overloaded("This server has as many connections as it may have (PUNA_MAX_CONNECTIONS)."))
        else:
            self._set_timer(self._limits.read_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ending = True
        self._set_timer(None)
        self._stop_looking()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def shutdown(self) -> None:
        self._channel.flush()
        super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_later(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._stop_looking()
        super().resume_writing()

    def _look_later(self, waiting: int) -> None:
        self._stop_looking()
        self._taking = self.loop.call_later(self._limits.write_timeout, self._look, waiting)

    def _stop_looking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _look(self, before: int) -> None:
        """Whether the client took something: one that stays and does not would keep its slot, and its model, for ever.

        `before`: bytes that waited for it at the last look.
        """
        waiting = self.transport.get_write_buffer_size()
        if waiting < before:
            self._look_later(waiting)
            return
        _log.info("client takes nothing: connection ended", client=self.client and self.client[0], waiting=waiting)
        self.transport.abort()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """True: the connection stays open for the answer."""
        self._channel.flush()
        self._eof = True
        cycle = self._cycle
        if self._ending or cycle is None or cycle.response_complete or cycle.upgraded:
            return None
        if self._in_body:
            cycle.fail(InvalidRequest("The body of this request ended before it was complete.", code="incomplete_body"))
        cycle.keep_alive = False
        self._set_timer(None)
        self.loop.call_later(_PROBES[0], self._probe)
        return True

    def _probe(self) -> None:
        """Find out whether a client that sends no more has gone: writing to it fails then, the second time.

        One of HTTP/1.0 knows no interim answers: it gets its answer's first bytes ahead, which are few: more and more
        seldom. After these it is the system that looks.
        """
        cycle = self._cycle
        if cycle is None or cycle.response_complete or self._ending or self.transport.is_closing():
            return
        pause = _PROBES[min(self._probed, len(_PROBES) - 1)]
        if not cycle.response_started:
            if cycle.scope["http_version"] == "1.1":
                self.transport.write(_CONTINUE)
            elif self._channel.write_ahead():
                pause *= 2**self._probed
            else:
                _keep_alive(self.transport)
                return
        self._probed += 1
        self.loop.call_later(pause, self._probe)

    @property
    def _cycle(self) -> _Cycle | None:
        return cast("_Cycle | None", self.cycle)

    # ------------------------------------------------------------------------------------------------------ bytes in

    def data_received(self, data: bytes) -> None:
        if self._rest:  # read before `hold` was heard
            self._rest += data
        else:
            self._receive(data)

    def _go_on(self) -> None:
        data, self._rest = self._rest, b""
        self._receive(data)
        if not self._rest and not self.transport.is_closing():
            self._flow.release()

    def _receive(self, data: bytes) -> None:
        if self._ending:
            return
        self._unset_keepalive_if_required()
        self._take(data)
        if self._in_body or self._head or self._blank:
            if self._timer is None:
                self._reading_since = self.loop.time()
                self._set_timer(self._limits.read_timeout)
        elif not self._ending:
            self._set_timer(None)

    def _take(self, data: bytes) -> None:
        while data:
            if self._in_body:
                data = self._feed_body(data)
                if data and self._in_body and self._left is None and not self._ending:
                    self._rest = data
                    self._flow.hold()
                    self.loop.call_soon(self._go_on)
                    return
            elif self._cycle is not None and self._cycle.upgraded:
                self._feed_upgraded(self._cycle, data)
                return
            elif self.cycle is not None and not self.cycle.response_complete:
                self._behind += data
                self.flow.pause_reading()
                if len(self._behind) > _MAX_BEHIND:
                    self.transport.abort()
                return
            else:
                data = self._feed_head(data)
            if self._ending:
                return

    def _feed_upgraded(self, cycle: _Cycle, data: bytes) -> None:
        """More of what is no HTTP any more, after what came before the answer that said so."""
        cycle.body += self._behind + data
        self._behind = b""
        cycle.message_event.set()
        if len(cycle.body) > _MAX_BEHIND:
            self.flow.pause_reading()

    def _feed_head(self, data: bytes) -> bytes:
        """Gather a head; parse it when it is whole. Gives what came after it."""
        if not self._head:
            before, data = len(data), data.lstrip(b"\r\n")
            self._blank += before - len(data)
            if self._blank > MAX_HEAD:
                self._refuse(HeadTooLarge(f"More than {MAX_HEAD} bytes of empty lines are before this request."))
                return b""
        seen = len(self._head)
        self._head += data
        end = _HEAD_END.search(self._head, max(0, seen - 3))
        head = bytes(self._head[: end.end()] if end else self._head)
        if not _begins_request(head):
            self._refuse(InvalidRequest("This is no HTTP request."))
            return b""
        if (wrong := check_head(head)) is not None:
            self._refuse(wrong, _path_of(head))
            return b""
        if end is None:
            return b""
        rest = bytes(self._head[len(head) :])
        self._head.clear()
        self._set_timer(None)
        self._reset()
        self._parse(_UPGRADE.sub(b"x-upgrade-offer:", head))
        if self._unfit is not None:
            self._refuse(self._unfit, _path_of(head))
        return rest

    def _reset(self) -> None:
        """For the next request."""
        self._in_body, self._left, self._received, self._overhead = True, None, 0, 0
        self._blank, self._fields_done, self._unfit, self.url = 0, False, None, b""

    def _feed_body(self, data: bytes) -> bytes:
        if self._left is not None:
            piece, rest = data[: self._left], data[self._left :]
            self._left -= len(piece)
            self._parse(piece)
            if self._left == 0 and self._in_body and not self._ending:
                # Never the case while both count alike. If they did not, no byte would ever be taken again.
                self._break("its length is not clear")
            return rest
        before = self._received
        piece, rest = data[:_SLICE], data[_SLICE:]
        self._parse(piece)
        self._overhead = 0 if self._received > before else self._overhead + len(piece)
        if self._in_body and self._overhead > MAX_HEAD:
            self._break(f"its chunks have more than {MAX_HEAD} bytes beside their content")
        elif self._astray and self.cycle is not None and self.cycle.response_complete:
            self._finish()
        return rest

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # CONNECT: `_begin` has refused it
        except httptools.HttpParserError as error:
            self._break(str(error))

    def _break(self, cause: str) -> None:
        """What the client sends is not HTTP: say so, to the reader of the body if there is one already."""
        if self._unfit is not None:
            return  # it is refused for what its head says, in words that tell more
        fault = InvalidRequest(f"This request is not valid HTTP: {cause}.", code="invalid_http")
        cycle = self._cycle
        if cycle is None or not self._fields_done:
            self._refuse(fault, self.url.decode("latin-1"))
        elif cycle.response_complete:
            self._finish()
        else:
            self._fail(cycle, fault)

    def _fail(self, cycle: _Cycle, fault: PunaError) -> None:
        """The rest of the body will not be read: its reader answers, and the connection ends."""
        self._in_body = False
        self._ending = True
        self._set_timer(None)
        cycle.fail(fault)

    # ---------------------------------------------------------------------------------------------- parser's calls

    def on_message_begin(self) -> None:
        if self._received or not self._in_body or self._astray:
            # Behind the last chunk of a body, in one piece with it. Clients of today do not do that; one that does is
            # told by the answer that this connection ends with it.
            self._astray = True
            if self.cycle is not None:
                self.cycle.keep_alive = False
            return
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._astray:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A trailer is read and left out: as a header it would come after everybody has looked at these.

        White space around a value is no part of it (RFC 9112, 5.1); the parser leaves tabs behind it.
        """
        if not self._astray and not self._fields_done:
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        if self._astray:
            return
        self._fields_done = True
        self._unfit = self._begin()

    def _begin(self) -> PunaError | None:
        """Start the request whose head is complete; or tell what is wrong with it."""
        version, method = self.parser.get_http_version(), self.parser.get_method().decode("ascii")
        if method == "CONNECT":
            return MethodNotAllowed("This server is no proxy: CONNECT is not allowed.")
        try:
            target = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError:
            return InvalidRequest("The target of this request is no URL.", code="invalid_http")
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]):
            return InvalidRequest(
                "A body comes whole or in chunks: other transfer codings are not read.", code="invalid_http"
            )
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and version == "1.1"):
            return InvalidRequest("A request has one Host header.", code="invalid_http")
        if target.host is not None:
            # In a request as to a proxy it is the target that names the host.
            host = b"[%s]" % target.host if b":" in target.host else target.host
            if target.userinfo is not None:
                host = target.userinfo + b"@" + host
            host += b":%d" % target.port if target.port else b""
            self.headers[:] = [(b"host", host), *(pair for pair in self.headers if pair[0] != b"host")]
        raw_path = target.path or b"/"
        scope = self.scope
        scope["method"] = method
        scope["http_version"] = version
        scope["path"] = unquote(raw_path.decode("latin-1"))
        scope["raw_path"] = raw_path
        scope["query_string"] = target.query or b""
        if not codings:
            # The parser has refused all but digits; blanks may stand around them.
            self._left = int(next((value for name, value in self.headers if name == b"content-length"), b"0"))
        self.cycle = _Cycle(
            scope=scope,
            transport=cast(asyncio.Transport, self._channel),
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version == "1.1" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        self._start_asgi_task(self.cycle, self.app)
        return None

    def on_body(self, body: bytes) -> None:
        self._received += len(body)
        if self.cycle is not None and not self._astray:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._astray or self._unfit is not None or self.cycle is None:
            return
        self._in_body = False
        if self.cycle.response_complete and not self._ending:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._astray and not self._ending:
            self._finish()
        if self._ending:
            self._unset_keepalive_if_required()
        elif self._in_body:
            self._unset_keepalive_if_required()
            self._set_timer(LINGER_SECONDS)
        elif self._behind:
            data, self._behind = self._behind, b""
            self.loop.call_soon(self.data_received, data)

    # ------------------------------------------------------------------------------------------ deadlines and ends

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._channel.flush()
        self._timer = None
        cycle = self._cycle
        if self.transport.is_closing():
            return
        if not self._in_body:
            if self._head:
                self._refuse(RequestTimeout(self._too_slow("head")), _path_of(bytes(self._head)))
            else:
                self.transport.close()
        elif cycle is None or cycle.response_complete:
            self._finish()
        elif self.flow.read_paused or cycle.waiting_for_100_continue:
            # It is we who do not read.
            self._reading_since = self.loop.time()
            self._set_timer(self._limits.read_timeout)
        else:
            left = self._reading_since + self._limits.read_timeout + self._received / MIN_RATE - self.loop.time()
            if left > 0:
                self._set_timer(left)
            else:
                self._fail(cycle, RequestTimeout(self._too_slow("body")))

    def _too_slow(self, what: str) -> str:
        return f"The {what} of this request did not come within {self._limits.read_timeout:g} s (PUNA_READ_TIMEOUT)."

    def _refuse(self, error: PunaError, path: str = "/") -> None:
        """Answer in the protocol's own name, and end the connection."""
        self._channel.flush()
        _log.info("refused at the door", status=error.status, reason=error.message, client=self.client)
        answer = error_response(error, path)
        named = (*self.server_state.default_headers, *answer.raw_headers)
        fields = b"".join(b"%s: %s\r\n" % pair for pair in named)
        self.transport.write(
            (STATUS_LINE.get(answer.status_code) or b"HTTP/1.1 %d \r\n" % answer.status_code)
            + fields + b"connection: close\r\n\r\n" + bytes(answer.body)
        )  # fmt: skip
        self._finish()

    def _finish(self) -> None:
        """Say that no more comes; close when the client has closed too, or after a while."""
        self._ending = True
        self._channel.flush()
        self._head.clear()
        self._behind = b""
        self._unset_keepalive_if_required()
        self._set_timer(None)
        if self.transport.is_closing():
            return
        if self._eof or not self.transport.can_write_eof():
            self.transport.close()
            return
        try:
            self.transport.write_eof()
        except OSError:  # the client has gone both ways
            self.transport.close()
            return
        self.flow.resume_reading()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)


def _path_of(head: bytes) -> str:
    """The path that a head names, for the dialect of a refusal."""
    words = head.split(b"\n", 1)[0].split(b" ")
    return words[1].decode("latin-1").partition("?")[0] if len(words) > 1 else "/"
