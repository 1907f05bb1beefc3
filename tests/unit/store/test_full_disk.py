"""A file system that is really full, at any byte of the work: the store stays valid, and it is told.

A small one in memory, mounted in a process of its own for which that is allowed. `PUNA_TEST_KILLS` says how many sizes
are tried, for each kind of work.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SIZES = int(os.environ.get("PUNA_TEST_KILLS", "12"))
MOUNTING = ("unshare", "--user", "--map-root-user", "--mount")
KINDS = ("create", "replace", "copy", "copy over", "delete", "pull", "download")


def obstacle() -> str | None:
    """Why nothing can be mounted here."""
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return "there is no unshare, or no mount, on this system"
    tried = subprocess.run([*MOUNTING, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"mounting is not allowed here: {tried.stderr.strip()}"


def leave(disk: Path, free: int) -> None:
    """So many bytes, and what is more goes to a file."""
    there = shutil.disk_usage(disk).free - free
    with (disk / "filler").open("wb") as file:
        if there > 0:
            os.posix_fallocate(file.fileno(), 0, there)


def run_out(disk: Path, kind: str, sizes: int) -> None:
    """In the process that has the small file system."""
    from puna.store import files

    # What is known before the work would refuse all of it: the disk is smaller than what is left free of one.
    files.SPARE_BYTES = -(1 << 40)  # type: ignore[misc]
    if kind == "download":
        asyncio.run(download_runs_out(disk, sizes))
        return
    from unit_store_kills import WORKS, check, prepare, state, told

    from puna.store.library import Library

    home = disk / "home"
    work = WORKS[kind]

    def fresh() -> Library:
        (disk / "filler").unlink(missing_ok=True)
        prepare(home)
        return Library.open(home / "models")

    before = state(fresh())
    free = shutil.disk_usage(disk).free
    work(Library.open(home / "models"), home)
    used, after = max(8192, free - shutil.disk_usage(disk).free), state(Library.open(home / "models"))
    refused = done = 0
    for number in range(sizes + 1):
        library = fresh()
        leave(disk, used * 3 * number // (2 * sizes) // 4096 * 4096)
        failed = told(lambda library=library: work(library, home))  # type: ignore[misc]
        (disk / "filler").unlink()
        if failed is None:
            done += 1
            assert state(Library.open(home / "models")) == after
        else:
            refused += 1
            assert failed.code == "disk_full", failed
            assert [path.name for path in (home / "models").rglob("*") if path.suffix == ".tmp"] == []
        check(home / "models", before, after)
    assert done, "with room for all of it it is done"
    assert refused or kind == "delete", "without room it is not"


async def download_runs_out(disk: Path, sizes: int) -> None:
    """It goes on from what is there, once there is room."""
    from random import Random

    from fakes.blob_server import BlobOrigin, BlobServer
    from puna.errors import StoreError
    from puna.sources.download import Parts, download
    from puna.sources.net import Net, Patience
    from puna.store.library import Library

    blob = Random(15).randbytes(1 << 20)
    parts = Parts(least=64 * 1024, most=64 * 1024, parallel=4)
    net = Net(patience=Patience(first=0.01, most=0.02))
    refused = 0
    for number in range(sizes + 1):
        models = disk / f"models{number}"
        library = Library.open(models)
        library.root.mkdir()
        async with BlobServer(blob).serving() as server:

            async def fetch(library: Library = library, server: BlobServer = server) -> None:
                origin = BlobOrigin(net, server.url)
                async for _ in download(net, origin, server.digest, len(blob), library, parts=parts):
                    pass

            leave(disk, len(blob) * 5 * number // (4 * sizes))
            failed = None
            try:
                await fetch()
            except StoreError as error:
                failed = error
            if failed is not None:
                assert failed.code == "disk_full", failed
                refused += 1
                assert library.blobs.find(server.digest) is None
                (disk / "filler").unlink()
                await fetch()
            assert server.sent <= 2 * len(blob)
            assert library.blobs.fault(server.digest, len(blob), anew=True) is None
            assert not library.partials.exists()
        shutil.rmtree(models)
        (disk / "filler").unlink(missing_ok=True)
    assert 0 < refused <= sizes
    await net.close()


SCRIPT = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from unit_store_full_disk import run_out
run_out(Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
"""


@pytest.fixture(scope="module")
def small_disk() -> Callable[[Path], tuple[str, ...]]:
    """What begins a command that has such a disk at a directory."""
    if (reason := obstacle()) is not None:
        pytest.skip(reason)
    mounted = 'mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@"'
    return lambda directory: (*MOUNTING, "sh", "-c", mounted, str(directory))


@pytest.mark.parametrize("kind", KINDS)
def test_the_store_stays_valid(small_disk: Callable[[Path], tuple[str, ...]], tmp_path: Path, kind: str) -> None:
    here = Path(__file__)
    for source, name in ((here, "unit_store_full_disk"), (here.with_name("test_kills.py"), "unit_store_kills")):
        (tmp_path / f"{name}.py").write_text(source.read_text("utf-8"), "utf-8")
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = [str(here.parents[2]), str(tmp_path), str(disk), kind, str(SIZES)]
    ended = subprocess.run(
        [*small_disk(disk), sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=250
    )
    assert (ended.returncode, ended.stderr[-3000:]) == (0, "")
