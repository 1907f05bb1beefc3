"""The shipped model in other types, each written once for all processes of a run."""

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
    own = tmp_path_factory.getbasetemp()
    directory = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "types"
    directory.mkdir(exist_ok=True)

    def shipped_in(kind: str) -> Path:
        with FileLock(directory / "lock"):
            return in_type(smollm2_gguf, kind, directory)

    return shipped_in
