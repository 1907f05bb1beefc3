"""Access: requests to one endpoint, let in by whatever its challenges ask for.

Nothing is sent along until a registry asks. Then, in this order: the user's own credentials for that host, where there
are some; else a token for nobody, else one for the key's owner (Ollama's registry: the key at once). What belongs to a
registry's host goes to that host and to where its tokens are, and the key's signature to that host alone: another
host could use it for itself.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from yarl import URL

from puna.addresses import Reach
from puna.errors import AccessDenied, SourceError
from puna.lane import while_asking
from puna.model.name import DEFAULT_HOST
from puna.sources.net import Net
from puna.sources.registry.challenge import Challenge, parse_challenge, schemes
from puna.sources.registry.credentials import Credentials, Login
from puna.sources.registry.endpoint import Endpoint
from puna.sources.source import Terms

if TYPE_CHECKING:
    from puna.sources.registry.key import SigningKey

MAX_TOKEN_BYTES = 256 * 1024


class Access:
    """Of one operation on one endpoint. `key`: loads the user's key, when it is needed."""

    def __init__(
        self, net: Net, endpoint: Endpoint, reach: Reach, credentials: Credentials, key: Callable[[], SigningKey]
    ) -> None:
        self.endpoint = endpoint
        self.net = net
        self._reach = reach
        self._credentials = credentials
        self._load_key = key
        self._authorization: str | None = None
        self._asking = asyncio.Lock()
        self._hint = ""

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        data: Callable[[], Any] | None = None,
        follow: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, let in if that can be; the answer whatever else its status is. `data` makes the body, each time.

        A URL of another host gets no authorization. AccessDenied: not let in. The errors of `Net.open`.
        """
        own = url.origin() == self.endpoint.base.origin()
        sent = self._authorization if own else None

        def once(authorization: str | None) -> Any:
            return self.net.open(
                method,
                url,
                reach=self._reach_of(url),
                headers=headers,
                authorization=authorization,
                data=None if data is None else data(),
                follow=follow,
            )

        async with once(sent) as response:
            challenged = response.status == 401 and own and response.url.origin() == url.origin()
            if not challenged:
                yield response
                return
            header = ", ".join(response.headers.getall("WWW-Authenticate", []))
        challenge = parse_challenge(header)
        if challenge is None:
            others = ", ".join(schemes(header))
            self._hint = f": it lets in by {others}, which is not spoken here" if others else ""
            raise self._denied()
        async with self._asking:
            renewed = self._authorization
        if renewed not in {None, sent}:
            # Another request was challenged before this one, and has found a way in.
            async with once(renewed) as response:
                if response.status != 401:
                    yield response
                    return
        async with aclosing(self._answers(challenge)) as answers:
            async for authorization in answers:
                async with once(authorization) as response:
                    if response.status != 401:
                        self._authorization = authorization
                        yield response
                        return
        raise self._denied()

    def at(self, endpoint: Endpoint) -> Access:
        """To another repository of the same registry: what lets in there is asked for anew."""
        return Access(self.net, endpoint, self._reach, self._credentials, self._load_key)

    def _reach_of(self, url: URL) -> Reach:
        """The endpoint's own on its host; elsewhere what settings say, and nothing less public than that host is."""
        base = self.endpoint.base
        if url.host == base.host:
            return self._reach
        return max(self.net.destinations.reach(url.authority, Terms()), min(self._reach, self.net.distance(base)))

    def _denied(self) -> AccessDenied:
        return AccessDenied(f"unauthorized: access denied by {self.endpoint.host}{self._hint}")

    async def _answers(self, challenge: Challenge) -> AsyncGenerator[str, None]:
        """Authorizations to try, the likeliest first."""
        login = await self._login()
        if challenge.scheme == "basic":
            if login is None:
                self._hint = f": it wants a name and a password ('docker login {self.endpoint.host}' keeps them)"
            elif not login.token:
                yield login.basic
            return
        url = challenge.url()
        same = url.authority == self.endpoint.base.authority
        self._check_realm(url)
        if login is not None:
            self._hint = f": what is kept for it by 'docker login {self.endpoint.host}' is refused"
            yield await self._token(challenge, login=login)
            return
        if self.endpoint.host != DEFAULT_HOST:
            token = await self._token_if_given(challenge)
            if token is not None:
                yield token
        if not same:
            self._hint = f": 'docker login {self.endpoint.host}' keeps a name and a password for it"
            return
        key = await asyncio.to_thread(self._load_key)
        self._hint = f": add the key of {key.public} to your account there"
        token = await self._token_if_given(challenge, key=key)
        if token is not None:
            yield token

    async def _login(self) -> Login | None:
        return await while_asking(lambda: self._credentials.find(self.endpoint.host))

    def _check_realm(self, realm: URL) -> None:
        """A registry may keep its tokens elsewhere, as Docker's does; over https, or on its own host."""
        base = self.endpoint.base
        if realm.authority == base.authority and realm.scheme == base.scheme:
            return
        if base.scheme == realm.scheme == "https" or (base.scheme == "http" and realm.host == base.host):
            return
        raise SourceError(f'realm host "{realm.authority}" does not match original host "{base.authority}"')

    async def _token_if_given(self, challenge: Challenge, *, key: SigningKey | None = None) -> str | None:
        try:
            return await self._token(challenge, key=key)
        except AccessDenied:
            return None

    async def _token(self, challenge: Challenge, *, login: Login | None = None, key: SigningKey | None = None) -> str:
        """AccessDenied when none is given."""
        authorization, body = None, None
        if key is not None:
            url = challenge.url(("nonce", secrets.token_urlsafe(16)), ("ts", str(int(time.time()))))
            authorization = key.sign_get(str(url))
        elif login is not None and login.token:
            url = challenge.base()
            body = aiohttp.FormData(
                {
                    "grant_type": "refresh_token",
                    "service": challenge.service,
                    "scope": challenge.scope,
                    "client_id": "puna",
                    "refresh_token": login.password,
                }
            )
        else:
            url = challenge.url(*([("account", login.user)] if login is not None else []))
            authorization = None if login is None else login.basic
        async with self.net.open(
            "GET" if body is None else "POST",
            url,
            reach=self._reach_of(url),
            authorization=authorization,
            data=body,
            follow=False,
        ) as response:
            if response.status in {400, 401, 403}:
                raise self._denied()
            if response.status != 200:
                raise await self.net.refusal(response, f"asking {url.authority} for a token")
            data = await self.net.read(response, MAX_TOKEN_BYTES, "the token")
        return f"Bearer {_token_in(data, url)}"


def _token_in(data: bytes, url: URL) -> str:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{url.host} gave no token: {error}") from error
    shape = answer if isinstance(answer, dict) else {}
    token = shape.get("token") or shape.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token:
        raise SourceError(f"{url.host} gave no token")
    return token
