"""Challenge: how a registry says what it takes to be let in (`WWW-Authenticate`). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from yarl import URL

from puna.errors import SourceError

_SCHEME = re.compile(r"\s*([A-Za-z]+)(?:\s+|$)")
_PARAMETER = re.compile(r'\s*([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))\s*,?')
_MAX_HEADER = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """`scheme`: 'basic' or 'bearer', in lower case. The others are of a bearer's."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

    def base(self) -> URL:
        """The realm, where OAuth2's forms go. SourceError when it is no http(s) URL."""
        try:
            realm = URL(self.realm, encoded=True)
            host = realm.host
        except ValueError as error:
            raise SourceError(f"a registry names no URL for its tokens: {self.realm[:200]!r}") from error
        if realm.scheme not in {"http", "https"} or not host:
            raise SourceError(f"a registry names no URL for its tokens: {self.realm[:200]!r}")
        return realm

    def url(self, *further: tuple[str, str]) -> URL:
        """Where a token is: the realm's own query, the service, each scope, and what is added; in order of their keys.

        SourceError when the realm is no http(s) URL.
        """
        realm = self.base()
        pairs = parse_qsl(realm.raw_query_string, keep_blank_values=True)
        pairs += [("service", self.service)] if self.service else []
        pairs += [("scope", scope) for scope in self.scope.split()]
        query = urlencode(sorted((*pairs, *further)))
        return URL(f"{realm.origin()}{realm.raw_path or '/'}?{query}", encoded=True)


def parse_challenge(header: str) -> Challenge | None:
    """The one that can be answered: a bearer's before a basic one. None where there is none."""
    found = {challenge.scheme: challenge for challenge in _challenges(header[:_MAX_HEADER])}
    return found.get("bearer") or found.get("basic")


def _challenges(header: str) -> list[Challenge]:
    found = []
    at = 0
    while (scheme := _SCHEME.match(header, at)) is not None:
        at = scheme.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(header, at)) is not None:
            at = parameter.end()
            quoted, plain = parameter[2], parameter[3]
            parameters[parameter[1].lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        found.append(
            Challenge(
                scheme=scheme[1].lower(),
                realm=parameters.get("realm", ""),
                service=parameters.get("service", ""),
                scope=parameters.get("scope", ""),
            )
        )
    return found
