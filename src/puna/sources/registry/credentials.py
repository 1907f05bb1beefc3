"""Credentials: who the user is at a registry, from where Docker and Podman keep it. Read, never written.

`DOCKER_AUTH_CONFIG` (the text of a config.json), `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`,
`REGISTRY_AUTH_FILE`, `$XDG_RUNTIME_DIR/containers/auth.json`. Helpers (`credHelpers`, `credsStore`) are programs
`docker-credential-…` on the PATH. Blocking: a helper may ask a keychain.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from puna.children import answered
from puna.errors import SourceError
from puna.plainfile import read_plain
from puna.sources.registry.endpoint import DOCKER_HUB
from puna.types import JsonObject

_MAX_BYTES = 1024 * 1024
_HELPER = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HELPER_SECONDS = 30.0
_HUB = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Login:
    """A user's name and password, or, where `token` is set, a token that buys others (OAuth2's refresh token)."""

    user: str
    password: str
    token: bool = False

    @property
    def basic(self) -> str:
        """As an Authorization header."""
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"

    def __repr__(self) -> str:
        return f"Login({self.user!r}, ...)"


class Credentials:
    """`environment` and `home` say where to look. A file that is not there is none; one that is damaged is told."""

    def __init__(self, environment: Mapping[str, str], home: Path | None) -> None:
        self._environment = environment
        self._home = home

    def find(self, host: str) -> Login | None:
        """Of a registry, by the host (`host[:port]`) that Names have. SourceError: a file or a helper is no good."""
        for where, config in self._configs():
            login = _login(where, config, host.lower(), self._environment)
            if login is not None:
                return login
        return None

    def _configs(self) -> Iterator[tuple[str, JsonObject]]:
        if given := self._environment.get("DOCKER_AUTH_CONFIG"):
            yield "DOCKER_AUTH_CONFIG", _object("DOCKER_AUTH_CONFIG", given)
        for path in self._paths():
            try:
                text = read_plain(path, _MAX_BYTES).decode("utf-8", "replace")
            except OSError:
                continue
            yield str(path), _object(str(path), text)

    def _paths(self) -> Iterator[Path]:
        docker = self._environment.get("DOCKER_CONFIG")
        if docker:
            yield Path(docker) / "config.json"
        elif self._home is not None:
            yield self._home / ".docker" / "config.json"
        if podman := self._environment.get("REGISTRY_AUTH_FILE"):
            yield Path(podman)
        if runtime := self._environment.get("XDG_RUNTIME_DIR"):
            yield Path(runtime) / "containers" / "auth.json"


def _login(where: str, config: JsonObject, host: str, environment: Mapping[str, str]) -> Login | None:
    helpers = config.get("credHelpers")
    for named, helper in helpers.items() if isinstance(helpers, dict) else ():
        if _same(named, host) and isinstance(helper, str):
            return _ask(helper, named, environment)
    auths = config.get("auths")
    entries = auths if isinstance(auths, dict) else {}
    key = next((key for key in entries if _same(key, host)), None)
    entry = entries.get(key) if key is not None else None
    if isinstance(entry, dict) and (found := _entry(where, entry)) is not None:
        return found
    store = config.get("credsStore")
    if isinstance(store, str) and store:
        hub = "https://index.docker.io/v1/"
        return _ask(store, key or (hub if host in _HUB else host), environment)
    return None


def _same(key: str, host: str) -> bool:
    """Whether a key of a config ('host', 'https://host', 'https://host/v1/') is of that host."""
    named = key.lower().partition("://")[2] or key.lower()
    named = named.partition("/")[0]
    return named == host or (named in _HUB and host in _HUB)


def _entry(where: str, entry: JsonObject) -> Login | None:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Login("<token>", token, token=True)
    text, user, password = entry.get("auth"), entry.get("username"), entry.get("password")
    if isinstance(text, str) and text:
        try:
            user, _, password = base64.b64decode(text, validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise SourceError(f"{where} holds an 'auth' that is none") from error
    return Login(user, password) if isinstance(user, str) and isinstance(password, str) and user else None


def _ask(helper: str, key: str, environment: Mapping[str, str]) -> Login | None:
    """What a helper keeps under a key. None: nothing."""
    name = f"docker-credential-{helper}"
    program = shutil.which(name, path=environment.get("PATH")) if _HELPER.fullmatch(helper) else None
    if program is None:
        raise SourceError(f"docker's config names the program {name}, which is not there")
    try:
        ended = answered([program, "get"], key.encode(), environment=environment, seconds=_HELPER_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"{name} does not answer: {error}") from error
    if ended.returncode != 0:
        said = (ended.stdout + ended.stderr).decode("utf-8", "replace").strip()
        if "not found" in said.lower():
            return None
        raise SourceError(f"{name} failed: {said[:200]}")
    answer = _object(name, ended.stdout.decode("utf-8", "replace"))
    user, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(user, str) or not isinstance(secret, str):
        raise SourceError(f"{name} gave no credentials")
    return Login(user, secret, token=user == "<token>")


def _object(where: str, text: str) -> JsonObject:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise SourceError(f"{where} is not an object")
    return value
