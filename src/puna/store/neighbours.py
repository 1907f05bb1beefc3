"""Neighbours: stores of Ollama on this machine that Puna does not use. They are found and offered, not taken."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from puna import places
from puna.store.manifests import Manifests


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A store, and how many models it holds."""

    path: Path
    models: int

    @property
    def offer(self) -> str:
        """What there is to be had, and how."""
        what = "model of an Ollama lies" if self.models == 1 else "models of an Ollama lie"
        return f"{self.models} {what} in {self.path}: {self.remedy}"

    @property
    def remedy(self) -> str:
        return f"with PUNA_READ_ONLY_MODELS={self.path} they are listed and run where they lie"


def neighbours(used: Sequence[Path]) -> list[Neighbour]:
    """Those that can be read, with a model at least; without the directories that are used already."""
    known = {_resolved(path) for path in used}
    found = []
    for path in places.ollama_models():
        if _resolved(path) in known:
            continue
        known.add(_resolved(path))
        with suppress(OSError):
            if models := len(Manifests(path / "manifests").names()):
                found.append(Neighbour(path, models))
    return found


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except OSError:
        return path.absolute()
