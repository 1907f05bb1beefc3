"""Challenge: how a registry says what it takes to be let in (`WWW-Authenticate`). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from yarl import URL

from puna.errors import SourceError

_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^",])+')
"""Between two commas, those inside of quotes aside."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9-]*)(?:\s+(.*))?", re.DOTALL)
_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s"]*))')
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
    found = {challenge.scheme: challenge for challenge in _challenges(header)}
    return found.get("bearer") or found.get("basic")


def schemes(header: str) -> list[str]:
    """What a registry would let in by, as it spells them."""
    return [scheme for scheme, _ in _listed(header)]


def _challenges(header: str) -> list[Challenge]:
    return [
        Challenge(
            scheme=scheme.lower(),
            realm=parameters.get("realm", ""),
            service=parameters.get("service", ""),
            scope=parameters.get("scope", ""),
        )
        for scheme, parameters in _listed(header)
    ]


def _listed(header: str) -> list[tuple[str, dict[str, str]]]:
    """Schemes and their parameters. Of a scheme with a token in their place ('Negotiate YII=') that is passed over."""
    found: list[tuple[str, dict[str, str]]] = []
    for item in _ITEM.findall(header[:_MAX_HEADER]):
        text = item.strip()
        if _PARAMETER.fullmatch(text) is None and (scheme := _SCHEME.fullmatch(text)) is not None:
            found.append((scheme[1], {}))
            text = (scheme[2] or "").strip()
        parameter = _PARAMETER.fullmatch(text)
        if parameter is not None and found:
            quoted, plain = parameter[2], parameter[3]
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found[-1][1].setdefault(parameter[1].lower(), value)
    return found
