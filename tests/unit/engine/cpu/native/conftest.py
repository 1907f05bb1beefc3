"""Every variant of the library that this processor runs; or the one that PUNA_CPU_VARIANT names."""

from __future__ import annotations

import os
from ctypes import CDLL
from pathlib import Path

import pytest

from puna.engine.cpu import library
from puna.errors import LoadFailed
from puna.settings import CPU_VARIANTS

HERE = Path(__file__).parent
EACH = int(os.environ.get("PUNA_TEST_EACH", "1"))
"""Every so manieth of these tests is run: for a library with sanitizers, which takes many times as long."""


def runnable() -> list[str]:
    if named := os.environ.get(library.VARIABLE):
        return [named]
    try:
        asked = library.opened("portable")
    except LoadFailed:
        return ["portable"]  # its tests say why it is not there
    return [name for name in CPU_VARIANTS if asked.puna_supported(name.encode())]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = [item for item in items if item.path.parent == HERE]
    left_out = {item.nodeid for number, item in enumerate(here) if number % EACH}
    config.hook.pytest_deselected(items=[item for item in here if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]


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
