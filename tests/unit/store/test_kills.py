"""A process that changes a store is killed at any line of it, or finds the disk full: no model is ever half there.

`PUNA_TEST_KILLS` says how often, for each kind of work.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest

from fakes.gguf_files import write_tiny_llama
from fakes.shelf import Shelf
from puna.errors import StoreError
from puna.model.manifest import CONFIG_TYPE, MODEL_TYPE, SYSTEM_TYPE, Config, Layer, Manifest, parse_manifest
from puna.model.name import Name
from puna.sources.mend import verify
from puna.sources.sources import Sources
from puna.store import library as library_module
from puna.store.library import Library

KILLS = int(os.environ.get("PUNA_TEST_KILLS", "12"))
ONE, TWO, NEW, FAR = (Name.parse(text) for text in ("one", "two", "new", "far/model"))


def create(library: Library, name: Name, weights: Path, system: bytes) -> None:
    layers = (
        Layer(MODEL_TYPE, library.blobs.add_file(weights), weights.stat().st_size),
        library.blobs.add_layer(SYSTEM_TYPE, system),
    )
    config = library.blobs.add_layer(CONFIG_TYPE, Config(model_family="llama").dump())
    library.write_manifest(name, Manifest(config, layers))


async def pull(library: Library, stock: Path) -> None:
    async for _ in Sources(library, [Shelf(Library.open(stock))]).pull(FAR):
        pass


async def repair(library: Library, stock: Path) -> None:
    async for _ in verify([FAR], library, Sources(library, [Shelf(Library.open(stock))]), repair=True):
        pass


Work = Callable[[Library, Path], None]
WORKS: dict[str, Work] = {
    "create": lambda library, home: create(library, NEW, home / "other.gguf", b"new"),
    "replace": lambda library, home: create(library, ONE, home / "other.gguf", b"another"),
    "copy": lambda library, home: library.copy(ONE, NEW),
    "copy over": lambda library, home: library.copy(ONE, TWO),
    "delete": lambda library, home: library.delete(ONE),
    "pull": lambda library, home: asyncio.run(pull(library, home / "stock")),
    "prune": lambda library, home: library.prune(now=time.time() + 2e6) and None,
}


def prepare(home: Path) -> None:
    """Two models that share their weights, what new ones are made of, and a shelf with one more."""
    shutil.rmtree(home, ignore_errors=True)
    made = home.with_name("prepared")
    if not made.exists():
        made.mkdir()
        make(made)
    shutil.copytree(made, home)


def make(home: Path) -> None:
    weights = write_tiny_llama(home / "tiny.gguf")
    write_tiny_llama(home / "other.gguf", seed=1)
    library = Library.open(home / "models")
    create(library, ONE, weights, b"one")
    create(library, TWO, weights, b"two")
    library.blobs.add_bytes(b"nobody's")
    create(Library.open(home / "stock"), FAR, home / "other.gguf", b"far")


def state(library: Library) -> dict[str, str]:
    return {name.short: library.manifest_bytes(name).hex() for name in library.names()}


def check(models: Path, before: dict[str, str], after: dict[str, str]) -> None:
    """Every model is as before or as after the work, and whole; what is left over goes."""
    library = Library.open(models)
    now = state(library)
    for name in before.keys() | after.keys():
        assert now.get(name) in {before.get(name), after.get(name)}, name
    for name in library.names():
        library.verify(library.resolve(name))
        assert all(library.blobs.fault(layer.digest, layer.size, anew=True) is None for layer in blobs(library, name))
    library.prune(now=time.time() + 2e6)
    used = {layer.digest.filename for name in library.names() for layer in blobs(library, name)}
    assert {path.name for path in library.blobs.directory.iterdir()} == used
    strays = [path for path in models.rglob("*") if path.is_file() and path.suffix == ".tmp"]
    assert strays == []


def blobs(library: Library, name: Name) -> tuple[Layer, ...]:
    return parse_manifest(library.manifest_bytes(name)).blobs


WATCHED = str(Path(library_module.__file__).parent)


class Lines:
    """Counts the lines of the store's code that are run, in all threads; `at` is the last one, if not None."""

    def __init__(self, at: int | None) -> None:
        self.count = 0
        self._at = at

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(WATCHED):
            return None
        if event == "line":
            self.count += 1
            if self.count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
        return self

    def run(self, work: Callable[[], None]) -> None:
        threading.settrace(self)
        sys.settrace(self)
        try:
            work()
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]


def trial(home: Path, work: Work, at: int | None) -> int:
    """In a process of its own; gives the lines that were run, 0: it was killed. `at`: the line at which it is."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        lines, status = Lines(at), 1
        try:
            library = Library.open(home / "models")
            lines.run(lambda: work(library, home))
            os.write(writing, str(lines.count).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0 or (at is not None and os.WIFSIGNALED(status)), "it failed"
    return int(told or 0)


def kill_again_and_again(home: Path, kind: str, kills: int) -> None:
    work, source = WORKS[kind], Random(kind)
    prepare(home)
    before = state(Library.open(home / "models"))
    total = trial(home, work, None)
    after = state(Library.open(home / "models"))
    killed = 0
    for number in range(kills):
        prepare(home)
        killed += not trial(home, work, 1 + (total * number // kills + source.randrange(max(1, total // kills))))
        check(home / "models", before, after)
        if kind not in {"delete", "prune"}:  # the same again, as a user would
            work(Library.open(home / "models"), home)
            assert state(Library.open(home / "models")) == after
    assert killed > kills // 2  # work in several threads does not run the same lines each time


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from unit_store_kills import kill_again_and_again
kill_again_and_again(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", WORKS)
def test_killed_at_any_line(tmp_path: Path, kind: str) -> None:
    """In a process that has no threads yet, which can be forked."""
    (tmp_path / "unit_store_kills.py").write_text(Path(__file__).read_text("utf-8"), "utf-8")
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{SCRIPT}"
    arguments = [str(tmp_path), str(tmp_path / "home"), kind, str(KILLS)]
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=550)
    assert (ended.returncode, ended.stderr[-3000:]) == (0, "")


# ------------------------------------------------------------------------------------------------------------ full disk


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set after how many more syncs the disk is full."""
    real, left = os.fsync, [10**9]

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return lambda after: left.__setitem__(0, after)


def told(work: Callable[[], None]) -> StoreError | None:
    try:
        work()
    except StoreError as error:
        return error
    return None


@pytest.mark.parametrize("kind", ["create", "replace", "copy", "pull"])
def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path, full: Callable[[int], None], kind: str) -> None:
    """At each moment at which it can be found out."""
    work, home = WORKS[kind], tmp_path / "home"
    prepare(home)
    before = state(Library.open(home / "models"))
    for after in range(100):
        prepare(home)
        full(after)
        failed = told(lambda: work(Library.open(home / "models"), home))
        full(10**9)
        if failed is None:
            break
        assert failed.code == "disk_full"
        assert [path.name for path in (home / "models").rglob("*") if path.suffix == ".tmp"] == []
        # The manifest may be written already when its directory could not be synced: it is whole then.
        check(home / "models", before, state(Library.open(home / "models")))
    assert after > 3
    assert json.dumps(state(Library.open(home / "models"))) != json.dumps(before)


# --------------------------------------------------------------------------------------------------------------- repair


def damage(home: Path) -> None:
    """A model from the shelf whose weights are zeros, and all else whole. Without a thread here: it is to be forked."""
    prepare(home)
    trial(home, WORKS["pull"], None)
    library = Library.open(home / "models")
    weights = library.resolve(FAR).weights
    weights.write_bytes(bytes(weights.stat().st_size))


def kill_repairs(home: Path, kills: int) -> None:
    source = Random(9)
    damage(home)
    before = state(Library.open(home / "models"))
    total = trial(home, REPAIR, None)
    check(home / "models", before, before)
    killed = 0
    for number in range(kills):
        damage(home)
        at = 1 + total * number // kills + source.randrange(max(1, total // kills))
        killed += not trial(home, REPAIR, at)
        library = Library.open(home / "models")
        assert state(library) == before, "no model became another, and none is gone"
        for name in (ONE, TWO):
            library.verify(library.resolve(name))
        trial(home, REPAIR, None)
        check(home / "models", before, before)
    assert killed > kills // 2


REPAIR: Work = lambda library, home: asyncio.run(repair(library, home / "stock"))  # noqa: E731


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.timeout(600)
def test_a_repair_that_is_killed_can_be_done_again(tmp_path: Path) -> None:
    """At any line of the store's, in a process of its own."""
    (tmp_path / "unit_store_kills.py").write_text(Path(__file__).read_text("utf-8"), "utf-8")
    script = SCRIPT.replace("kill_again_and_again(Path(sys.argv[2]), sys.argv[3], ", "kill_repairs(Path(sys.argv[2]), ")
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{script}".replace(
        "import kill_again_and_again", "import kill_repairs"
    )
    arguments = [str(tmp_path), str(tmp_path / "home"), "repair", str(KILLS)]
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=550)
    assert (ended.returncode, ended.stderr[-3000:]) == (0, "")
