"""Every variant of the library that this processor runs; or the one that PUNA_CPU_VARIANT names."""

from __future__ import annotations

import os
from ctypes import CDLL

import pytest

from puna.engine.cpu import library
from puna.errors import LoadFailed
from puna.settings import CPU_VARIANTS


def runnable() -> list[str]:
    if named := os.environ.get(library.VARIABLE):
        return [named]
    try:
        asked = library.opened("portable")
    except LoadFailed:
        return ["portable"]  # its tests say why it is not there
    return [name for name in CPU_VARIANTS if asked.puna_supported(name.encode())]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Not before tests are collected: by then the library is that of these sources."""
    if "native" in metafunc.fixturenames:
        metafunc.parametrize("native", runnable(), indirect=True, scope="session")


@pytest.fixture(scope="session")
def native(request: pytest.FixtureRequest) -> CDLL:
    return library.opened(request.param)


@pytest.fixture(scope="session")
def variants() -> dict[str, CDLL]:
    return {name: library.opened(name) for name in runnable()}
