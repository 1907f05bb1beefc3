"""A connection to a server of which is known that it is a Puna: its answers as JSON, whole or by the line.

Before the first request it asks who answers there, and no answer of anything else is used.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from puna.client.errors import (
    ConnectionLost,
    KeyRefused,
    NotPuna,
    ServerRefused,
    ServerUnreachable,
    Vanished,
    reason_of,
)
from puna.client.fields import text_of
from puna.client.response import Response
from puna.client.roundtrip import Body, Broken, NotConnected, TooSlow
from puna.settings import IDENTITY, Address

if TYPE_CHECKING:  # it takes as long to import as all that a short command needs besides
    from puna.client.transport import Transport
    from puna.types import JsonObject, JsonValue

_IDENTIFY_SECONDS = 2.0
"""How long a server on this machine may take to say what it is: Puna answers that at once, whatever it works on."""
_IDENTIFY_SECONDS_FAR = 15.0
_LINE_LIMIT = 64 * 1024 * 1024
_IDENTITY_BYTES = 64 * 1024


class Channel:
    """Requests may be made at once; each has a connection of its own.

    `on_identified` is told the server's version, once. `direct`: no event loop is there (`puna.client.direct`).
    """

    def __init__(
        self, address: Address, *, api_key: str | None, on_identified: Callable[[str], None], direct: bool
    ) -> None:
        self.url = address.url
        self.local = address.host in {"", "localhost", "0.0.0.0", "::"} or _is_loopback(address.host)
        self._address = address
        self._on_identified = on_identified
        self._identified = ""
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        # A server on this machine is never behind a proxy, whatever the environment says.
        self._transport = _transport(address, proxied=not self.local, direct=direct)

    async def identify(self, seconds: float | None = None) -> str:
        """The version of the Puna that answers. ServerUnreachable when nothing does, NotPuna when something else does.

        Takes no key. `seconds`: for which it may keep silent; a few if not told.
        """
        if not self._identified:
            try:
                self._identified = await self._ask_identity(seconds)
            except Vanished:
                # It may have been a server in the moment of its end: look once more.
                self._identified = await self._ask_identity(seconds)
            self._on_identified(self._identified)
        return self._identified

    async def _ask_identity(self, seconds: float | None) -> str:
        seconds = seconds or (_IDENTIFY_SECONDS if self.local else _IDENTIFY_SECONDS_FAR)
        until = time.monotonic() + seconds
        try:
            async with self._transport.request("HEAD", "/", {}, seconds=seconds) as response:
                return response.headers.get(IDENTITY) or await self._told_version(response, until)
        except NotConnected as error:
            if isinstance(error.__cause__, TimeoutError) and self.local:
                raise self._other(f"something that does not answer within {seconds:g} s") from error
            raise ServerUnreachable(self.url, reason_of(error), local=self.local) from error
        except TooSlow as error:
            raise self._other(f"something that does not answer within {seconds:g} s") from error
        except Broken as error:
            if isinstance(error.__cause__, OSError):
                raise Vanished(self._address, self._holder("something that closes its connections")) from error
            raise self._other("something that does not speak HTTP") from error

    async def _told_version(self, response: Response, until: float) -> str:
        """What `/api/version` tells, where a proxy has kept the header from us. NotPuna names what else it is."""
        left = max(0.1, until - time.monotonic())
        try:
            async with self._transport.request("GET", "/api/version", {}, seconds=left) as versions:
                answer = json.loads(await versions.read(_IDENTITY_BYTES, left))
        except (NotConnected, Broken, TooSlow, ValueError):
            answer = None
        if isinstance(answer, dict):
            if version := text_of(answer, "puna"):
                return version
            if version := text_of(answer, "version"):
                raise self._other(f"Ollama {_plain(version)} (or a program that answers like it)")
        name = _plain(response.headers.get("server", ""))
        what = f"another HTTP server ({name})" if name else "another HTTP server"
        if response.status in {301, 302, 303, 307, 308}:
            what += f" that sends on to {_plain(response.headers.get('location', ''))}"
        elif response.status >= 400:
            what += f" that answers {response.status}"
        raise self._other(what)

    def _other(self, what: str) -> NotPuna:
        return NotPuna(self._address, self._holder(what))

    def _holder(self, what: str) -> str:
        if self.local:
            from puna.occupant import process_on

            if holder := process_on(self._address.port):
                return f"{what} ({holder})"
        return what

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        body: JsonObject | None = None,
        *,
        data: Body | None = None,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[Response]:
        """The answer, which is no refusal: of one comes ServerRefused, or KeyRefused."""
        async with self.asked(method, path, body, data=data, headers=headers) as response:
            if response.status >= 300:
                raise ServerRefused(response.status, await self._refusal(response))
            yield response

    @asynccontextmanager
    async def asked(
        self,
        method: str,
        path: str,
        body: JsonObject | None = None,
        *,
        data: Body | None = None,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[Response]:
        """The answer, whatever it is; but KeyRefused where it asks for a key."""
        await self.identify()
        sent = dict(self._headers)
        if body is not None:
            data = Body.of(json.dumps(body).encode())
            sent["content-type"] = "application/json"
        async with AsyncExitStack() as stack:
            asking = self._transport.request(method, path, {**sent, **(headers or {})}, data)
            try:
                response = await stack.enter_async_context(asking)
            except NotConnected as error:
                raise ServerUnreachable(self.url, reason_of(error), local=self.local) from error
            except Broken as error:
                raise ConnectionLost(self.url, reason_of(error)) from error
            if response.status == 401:
                raise KeyRefused(self.url, sent="authorization" in self._headers)
            yield response

    async def json(self, method: str, path: str, body: JsonObject | None = None) -> JsonObject:
        """The object that is answered."""
        async with self.request(method, path, body) as response:
            answer = await self.value(response, path)
        if not isinstance(answer, dict):
            raise self.odd(path)
        return answer

    async def value(self, response: Response, what: str) -> JsonValue:
        """A whole answer's JSON; `what` names it in an error."""
        try:
            value: JsonValue = json.loads(await self._whole(response))
        except ValueError as error:
            raise self.odd(what) from error
        return value

    async def _refusal(self, response: Response) -> str:
        text = (await self._whole(response)).decode(errors="replace")
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and isinstance(answer.get("error"), str):
            return str(answer["error"])
        return text.strip() or f"{response.status} {response.reason or ''}".strip()

    async def _whole(self, response: Response) -> bytes:
        try:
            return await response.read()
        except Broken as error:
            raise ConnectionLost(self.url, reason_of(error)) from error

    def odd(self, what: str) -> ServerRefused:
        """`what`: what was answered in a way that no Puna answers it."""
        return ServerRefused(200, f"the server at {self.url} answered {what} in a way that Puna does not understand")

    async def lines(self, response: Response) -> AsyncIterator[JsonObject]:
        """The objects of an NDJSON stream; a line with `error` is raised."""
        rest = b""
        try:
            async for data in response.pieces():
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > _LINE_LIMIT:
                    raise self.odd("a line over 64 MiB")
                for line in lines:
                    if line.strip():
                        yield self._object(line)
        except Broken as error:
            raise ConnectionLost(self.url, reason_of(error)) from error
        if rest.strip():
            yield self._object(rest)

    def _object(self, line: bytes) -> JsonObject:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise self.odd("a stream") from error
        if not isinstance(value, dict):
            raise self.odd("a stream")
        if "error" in value:
            raise ServerRefused(200, str(value["error"]))
        return value


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _plain(text: str) -> str:
    """A stranger's text, fit for a terminal."""
    return "".join(character for character in text[:80] if character.isprintable())


def _transport(address: Address, *, proxied: bool, direct: bool) -> Transport:
    if direct:
        from puna.client.direct import DirectTransport

        return DirectTransport(address, proxied=proxied)
    from puna.client.threaded import ThreadedTransport

    return ThreadedTransport(address, proxied=proxied)
