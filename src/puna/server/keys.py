"""Who may use the server: whoever has one of the operator's keys, and nobody who guesses at them for long."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from puna.errors import TooManyRequests, Unauthorized
from puna.server.owner import owner_of_key

OPEN_PATHS = frozenset({"/", "/health", "/ready"})
"""For probes, and for a look whether anybody is there."""

GUESSES = 10
"""Wrong keys of one address in `GUESS_SECONDS` before the brake."""
GUESS_SECONDS = 60.0
BRAKE_SECONDS = 1.0
"""How long each answer to a further wrong key waits."""
_ADDRESSES = 4096


class Brake:
    """Counts wrong keys by the address they come from. Remembers the last `_ADDRESSES` addresses only."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wrong(self, address: str) -> float | None:
        """Count a wrong key. The seconds until the count begins anew, if there were too many; None if not."""
        network, now = _network(address), self._now()
        began, count = self._wrong.pop(network, (now, 0))
        if now - began >= GUESS_SECONDS:
            began, count = now, 0
        self._wrong[network] = (began, count + 1)
        if len(self._wrong) > _ADDRESSES:
            self._wrong.popitem(last=False)
        return GUESS_SECONDS - (now - began) if count >= GUESSES else None


def _network(address: str) -> str:
    """Whose address it is: an IPv6 subscriber has 2**64 of them."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return str(parsed)


class Keys:
    """Asks for one of the operator's keys, if there are any, on all but `OPEN_PATHS`.

    A right key is always let in, also from an address whose guesses are braked: many may share it.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = tuple(key.encode() for key in keys)
        self._brake = Brake()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._keys and scope["path"] not in OPEN_PATHS:
            key = self._key(Headers(scope=scope))
            if key is None:
                address = (scope.get("client") or ("", 0))[0]
                wait = self._brake.wrong(address)
                if wait is not None:
                    await asyncio.sleep(BRAKE_SECONDS)
                    raise TooManyRequests("Incorrect API key provided, too often: wait.", retry_after=wait)
                raise Unauthorized("Incorrect API key provided.")
            scope.setdefault("state", {})["owner"] = owner_of_key(key)
        await self._app(scope, receive, send)

    def _key(self, headers: Headers) -> bytes | None:
        """The one of the operator's keys that was sent. Unauthorized when there is none at all, which is no guess."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not key:
            raise Unauthorized(
                "You didn't provide an API key. Send one of this server's keys as 'Authorization: Bearer KEY'."
            )
        # Every key is compared, in constant time: how long this takes tells nothing about them. Headers are bytes: a
        # client writes a key that is not ASCII as UTF-8, or as Latin-1.
        written = (key.encode(), key.encode("latin-1"))
        same = [known for known in self._keys for form in written if hmac.compare_digest(form, known)]
        return same[0] if same else None
