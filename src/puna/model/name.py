"""Name: what a model is called, host/namespace/model:tag. Pure.

Grammar and defaults are Ollama's, so that both read each other's stores. A Name holds no scheme and no digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice

from puna.errors import InvalidName

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, slots=True)
class Name:
    """Four valid parts; made by `parse` or `of`."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str, *, param: str = "model") -> Name:
        """From `[https://][host/][namespace/]model[:tag]`. Two parts are namespace/model. InvalidName if it is none."""
        rest, tag = _cut_tag(text.strip())
        rest, slash, model = rest.rpartition("/")
        host, namespace = "", ""
        if slash:
            host, slash, namespace = rest.rpartition("/")
            if not namespace or (slash and not host):
                raise _invalid(text, param)
        return cls.of(
            host.removeprefix("https://") or DEFAULT_HOST,
            namespace or DEFAULT_NAMESPACE,
            model,
            DEFAULT_TAG if tag is None else tag,
            param=param,
            written=text,
        )

    @staticmethod
    def writes_host(text: str) -> bool:
        """Whether a text that `parse` takes says the host itself. The Name does not: it is the same either way."""
        return _cut_tag(text.strip())[0].removeprefix("https://").count("/") > 1

    @classmethod
    def of(
        cls, host: str, namespace: str, model: str, tag: str, *, param: str = "model", written: str | None = None
    ) -> Name:
        """From all four parts. InvalidName if one breaks the grammar; it quotes what was `written`, if given."""
        name = cls(host, namespace, model, tag)
        # Thousands are made for a list: without an object for each part.
        known = _HOST.fullmatch(host) and _NAMESPACE.fullmatch(namespace)
        if not (known and _WORD.fullmatch(model) and _WORD.fullmatch(tag)):
            raise _invalid(name.full if written is None else written, param)
        return name

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """As the manifest's path has them."""
        return self.host, self.namespace, self.model, self.tag

    @property
    def full(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def short(self) -> str:
        """Without the default host and namespace; the tag is always shown."""
        if self.host.lower() != DEFAULT_HOST:
            return self.full
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def folded(self) -> tuple[str, str, str, str]:
        """What two spellings of one Name have in common."""
        return self.host.lower(), self.namespace.lower(), self.model.lower(), self.tag.lower()

    def __str__(self) -> str:
        return self.short


NEAREST_AMONG = 2000
"""So many stored Names are looked at, however many there are: a refusal has to be quick."""


def nearest(name: Name, stored: Iterable[Name], *, limit: int = 3) -> tuple[Name, ...]:
    """What may have been meant: other tags of the same model first, then models that are written alike."""
    by_model: dict[str, list[Name]] = {}
    for other in islice(stored, NEAREST_AMONG):
        if other.folded != name.folded:
            by_model.setdefault(_path(other), []).append(other)
    close = get_close_matches(_path(name), by_model, n=limit, cutoff=0.7)
    return tuple(other for text in close for other in sorted(by_model[text], key=str))[:limit]


def _path(name: Name) -> str:
    """Without its host, which is long and would make all that is on one host alike, and without its tag."""
    _, namespace, model, _ = name.folded
    return model if namespace == DEFAULT_NAMESPACE else f"{namespace}/{model}"


def _cut_tag(text: str) -> tuple[str, str | None]:
    """A colon before the last slash belongs to a port."""
    colon = text.rfind(":")
    return (text, None) if colon <= text.rfind("/") else (text[:colon], text[colon + 1 :])


def _invalid(text: str, param: str) -> InvalidName:
    return InvalidName(f"invalid model name {text[:400]!r}: expected [host/][namespace/]model[:tag]", param=param)
