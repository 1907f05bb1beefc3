"""HubAccess: where a hub is, whose token goes with a request, where its own client keeps files: by its variables. Pure,
but for reading the token's file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from puna.plainfile import read_plain
from puna.settings import SettingError

HOSTS = frozenset({"hf.co", "huggingface.co"})
"""Two names of one place."""
ENDPOINT = "https://huggingface.co"
_YES = frozenset({"1", "on", "yes", "true"})


@dataclass(frozen=True, slots=True)
class HubToken:
    """`origin`: where it was found, in words; the token itself is never told."""

    value: str
    origin: str

    @property
    def header(self) -> str:
        return f"Bearer {self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubAccess:
    """`endpoint`: a URL without a slash at its end. `chosen`: a variable names it. `cache`: the hub's own directory of
    downloaded files, there or not. `offline`: the hub is not to be asked.
    """

    endpoint: str = ENDPOINT
    chosen: bool = False
    token: HubToken | None = None
    cache: Path | None = None
    offline: bool = False

    @property
    def whose(self) -> str:
        """Of which token an answer speaks."""
        if self.token is None:
            return "no token was sent: set HF_TOKEN, or sign in with 'hf auth login'"
        return f"with the token of {self.token.origin}"


def access(environment: Mapping[str, str], home: Path | None) -> HubAccess:
    """By HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_CACHE, HF_HOME and HF_HUB_OFFLINE. `home`: the user's."""
    endpoint = environment.get("HF_ENDPOINT", "").strip().rstrip("/")
    if endpoint and not endpoint.startswith(("https://", "http://")):
        raise SettingError("HF_ENDPOINT", endpoint, "a URL such as https://huggingface.co")
    root = _root(environment, home)
    cache = _path(environment, "HF_HUB_CACHE") or _path(environment, "HUGGINGFACE_HUB_CACHE")
    return HubAccess(
        endpoint=endpoint or ENDPOINT,
        chosen=bool(endpoint),
        token=_token(environment, root),
        cache=cache or (None if root is None else root / "hub"),
        offline=environment.get("HF_HUB_OFFLINE", "").strip().lower() in _YES,
    )


def _root(environment: Mapping[str, str], home: Path | None) -> Path | None:
    if (said := _path(environment, "HF_HOME")) is not None:
        return said
    if (caches := _path(environment, "XDG_CACHE_HOME")) is not None:
        return caches / "huggingface"
    return None if home is None else home / ".cache" / "huggingface"


MAX_TOKEN_BYTES = 65536


def _token(environment: Mapping[str, str], root: Path | None) -> HubToken | None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if value := _clean(environment.get(name, "")):
            return HubToken(value, name)
    path = _path(environment, "HF_TOKEN_PATH") or (None if root is None else root / "token")
    try:
        value = "" if path is None else _clean(read_plain(path, MAX_TOKEN_BYTES).decode())
    except (OSError, ValueError):
        return None
    return HubToken(value, str(path)) if value else None


def _clean(text: str) -> str:
    """In one line, as a header takes it; '' for what is no token."""
    value = text.strip()
    return value if value.isprintable() and value.isascii() and " " not in value else ""


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    text = environment.get(name, "").strip()
    return Path(text).expanduser() if text else None
