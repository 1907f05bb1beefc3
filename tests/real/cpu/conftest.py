"""The shipped model, and its first layers alone, in other types: each written once for all processes of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from .models import in_type

InType = Callable[[str], Path]


@pytest.fixture(scope="session")
def shipped_in(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> InType:
    """`shipped_in("BF16")`: a file that nobody changes."""
    return _types_of(smollm2_gguf, tmp_path_factory, "types")


@pytest.fixture(scope="session")
def shallow_in(shallow_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> InType:
    """The same of its first layers."""
    return _types_of(shallow_gguf, tmp_path_factory, "shallow-types")


def _types_of(model: Path, tmp_path_factory: pytest.TempPathFactory, name: str) -> InType:
    own = tmp_path_factory.getbasetemp()
    directory = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    directory.mkdir(exist_ok=True)

    def found(kind: str) -> Path:
        with FileLock(directory / "lock"):
            return in_type(model, kind, directory)

    return found
