"""Downloads from a server that does what servers and networks do."""

import asyncio
import errno
import os
import random
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from fakes.blob_server import BlobOrigin, BlobServer
from fakes.waiting import until
from puna.errors import (
    AccessDenied,
    DigestMismatch,
    PunaError,
    SourceAnswer,
    SourceError,
    SourceUnreachable,
    StoreError,
)
from puna.model.digest import Digest
from puna.sources.download import Parts, download
from puna.sources.net import Net, Patience
from puna.sources.partial import Partial, remove_leftover
from puna.store.library import Library
from puna.types import Progress

KB = 1024
PARTS = Parts(least=64 * KB, most=64 * KB, parallel=4)
BLOB = random.Random(15).randbytes(1000 * KB + 17)
RUNS = int(os.environ.get("PUNA_TEST_KILLS", "6"))
"""How many pulls are killed; an acceptance has 100."""


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.open(tmp_path / "models")


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    made = Net(patience=Patience(first=0.01, most=0.02, stall=0.3, connect=2.0, longest=2.0))
    yield made
    await made.close()


async def got(net: Net, server: BlobServer, library: Library, parts: Parts = PARTS) -> list[Progress]:
    origin = BlobOrigin(net, server.url)
    size = len(server.data)
    return [step async for step in download(net, origin, server.digest, size, library, parts=parts)]


def files(library: Library) -> list[str]:
    return sorted(str(path.relative_to(library.root)) for path in library.root.rglob("*") if path.is_file())


def stored(library: Library, server: BlobServer) -> bool:
    path = library.blobs.find(server.digest)
    return path is not None and path.read_bytes() == server.data


async def test_in_parts(net: Net, library: Library) -> None:
    async with BlobServer(BLOB).serving() as server:
        steps = await got(net, server, library)
        assert stored(library, server)
        assert sorted(part for part in server.asked if part) == [
            (at, min(at + 64 * KB, len(BLOB))) for at in range(0, len(BLOB), 64 * KB)
        ]
    assert [name for name in files(library) if not name.startswith("verified")] == [f"blobs/{server.digest.filename}"]
    last = Progress(f"pulling {server.digest.short}", str(server.digest), len(BLOB), len(BLOB))
    assert steps[-1] == last
    assert all(step.total == len(BLOB) for step in steps)


@pytest.mark.parametrize("blob", [b"", b"x", BLOB[: 64 * KB], BLOB[: 64 * KB + 1]], ids=len)
async def test_of_any_size(net: Net, library: Library, blob: bytes) -> None:
    async with BlobServer(blob).serving() as server:
        await got(net, server, library)
        assert stored(library, server)


@pytest.mark.parametrize("fault", ["drop", "stall", "trickle", "early", "503", "429", "500", "missing", "403"])
async def test_a_failure_costs_the_rest_of_its_part(net: Net, library: Library, fault: str) -> None:
    async with BlobServer(BLOB, faults=deque([fault, "", fault])).serving() as server:
        await got(net, server, library)
        assert stored(library, server)
        # Twice half a part at most, and what lay in buffers.
        assert server.sent <= len(BLOB) + 2 * 64 * KB
        assert len(server.asked) == 16 + 2


async def test_a_server_that_gives_less_than_it_is_asked_for(net: Net, library: Library) -> None:
    """It may, and says so: the rest is asked for at once, and no failure counts."""
    async with BlobServer(BLOB, always="some").serving() as server:
        steps = await got(net, server, library)
        assert stored(library, server)
        assert server.sent == len(BLOB)
        assert not any("trying again" in step.status for step in steps)


async def test_what_comes_slowly_is_kept_and_told_meanwhile(net: Net, library: Library) -> None:
    """Not only where a block of it is full: a slow link takes long for one, and a kill would cost all of it."""
    blob = BLOB[: 200 * KB]
    async with BlobServer(blob, per_second=100 * KB).serving() as server:
        steps = download(
            net, BlobOrigin(net, server.url), server.digest, len(blob), library, parts=Parts(least=1 << 20)
        )
        async with aclosing(steps):
            async for step in steps:
                if step.completed:
                    break
    assert 0 < (step.completed or 0) < len(blob)
    assert step.completed is not None
    partial = Partial(library.partials, server.digest, len(blob), 1 << 20)
    assert partial.try_open()
    assert partial.completed >= step.completed
    partial.close()


@pytest.mark.parametrize("fault", ["whole", "early"])
async def test_ranges_ignored(net: Net, library: Library, fault: str) -> None:
    async with BlobServer(BLOB, always="whole").serving() as server:
        server.faults = deque(["whole", fault])
        await got(net, server, library)
        assert stored(library, server)


async def test_a_part_that_is_being_written_is_waited_for(
    net: Net, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two who write one part at once would lose count of it, and the end would be waited for without end."""
    write, asked_meanwhile = Partial.write, []
    async with BlobServer(BLOB, faults=deque(["", "whole"]), always="whole").serving() as server:

        def slowly(self: Partial, at: int, data: bytes | bytearray) -> None:
            first = not asked_meanwhile
            if first:
                asked_meanwhile.append(False)
                with suppress(pytest.fail.Exception):
                    until(lambda: None in server.asked, 0.5, "all of it to be asked for")
                asked_meanwhile[0] = None in server.asked
            write(self, at, data)

        monkeypatch.setattr(Partial, "write", slowly)
        await got(net, server, library)
        assert asked_meanwhile == [False]
        assert stored(library, server)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("wrong", DigestMismatch, "must be downloaded again: want sha256:"),
        ("total", SourceError, "bytes by the test's server"),
        ("shifted", SourceError, "another range"),
        ("416", SourceError, "fewer bytes"),
        ("more", SourceError, "sends more"),
        ("drop", SourceUnreachable, "max retries exceeded: 127.0.0.1:[0-9]+ broke off the connection"),
        ("few", SourceUnreachable, "max retries exceeded: .* next to nothing at once"),
        ("stall", SourceUnreachable, "max retries exceeded"),
        ("503", SourceAnswer, "max retries exceeded: .*503: not now"),
        ("418", SourceAnswer, "418"),
        ("403", AccessDenied, "access denied"),
    ],
)
async def test_what_does_not_get_better_is_told(
    net: Net, library: Library, fault: str, kind: type[PunaError], words: str
) -> None:
    # So small that half of a part is nothing to speak of.
    async with BlobServer(BLOB[:3000], always=fault).serving() as server:
        with pytest.raises(kind, match=words):
            await got(net, server, library, Parts(least=50 * KB, parallel=1))
        assert len(server.asked) <= net.patience.tries + 1
    assert library.blobs.find(server.digest) is None
    if kind is DigestMismatch:
        assert files(library) == []


async def test_a_server_says_when_to_come_again(net: Net, library: Library) -> None:
    async with BlobServer(BLOB, always="429", headers={"Retry-After": "3600"}).serving() as server:
        with pytest.raises(SourceAnswer, match="come again in 3600 s"):
            await got(net, server, library)
        assert len(server.asked) <= PARTS.parallel


async def test_bytes_that_rotted_are_fetched_once_more(net: Net, library: Library) -> None:
    async with BlobServer(BLOB).serving() as server:
        partial = Partial(library.partials, server.digest, len(BLOB), 64 * KB)
        assert partial.try_open()
        partial.write(0, bytes(64 * KB))
        partial.close()
        await got(net, server, library)
        assert stored(library, server)


@pytest.mark.parametrize("left", [b"", b"x" * 20, b"x" * 500])
async def test_notes_that_cannot_be_read_begin_anew(net: Net, library: Library, left: bytes) -> None:
    async with BlobServer(BLOB).serving() as server:
        directory = library.partials / server.digest.hex
        directory.mkdir(parents=True)
        (directory / "done").write_bytes(left)
        (directory / "data").write_bytes(left)
        await got(net, server, library)
        assert stored(library, server)


async def test_a_full_disk(net: Net, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    async with BlobServer(BLOB).serving() as server:
        with monkeypatch.context() as patched:
            patched.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**6))
            with pytest.raises(StoreError, match="no space left") as caught:
                await got(net, server, library)
            assert caught.value.code == "disk_full"
            assert server.asked == []
            patched.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=len(BLOB)))
            with pytest.raises(StoreError, match="are needed, .* are free, and 67108864 of them are kept free"):
                await got(net, server, library)
        with monkeypatch.context() as patched:
            # As the system says it, in the place where blocks of a sparse file are wanted.
            def full(*_: object) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

            patched.setattr(Partial, "_put", full)
            with pytest.raises(StoreError, match="no space left"):
                await got(net, server, library)
        await got(net, server, library)
        assert stored(library, server)


async def test_joined(net: Net, library: Library) -> None:
    async with BlobServer(BLOB, per_second=2_000_000).serving() as server:
        await asyncio.gather(*(got(net, server, library) for _ in range(3)))
        assert len(server.asked) == 16


async def test_two_processes(net: Net, library: Library) -> None:
    """The second, here another library on the same directory, waits, and finds the blob."""
    other = Library.open(library.root)
    async with BlobServer(BLOB, per_second=1_000_000).serving() as server:
        one, two = await asyncio.gather(got(net, server, library), got(net, server, other))
        assert len(server.asked) == 16
        assert any("another process" in step.status for step in (*one, *two))


async def test_left_early_goes_on_later(net: Net, library: Library) -> None:
    async with BlobServer(BLOB, per_second=500_000).serving() as server:
        origin = BlobOrigin(net, server.url)
        async with aclosing(download(net, origin, server.digest, len(BLOB), library, parts=PARTS)) as steps:
            async for step in steps:
                if (step.completed or 0) > 300 * KB:
                    break
        before = Partial(library.partials, server.digest, len(BLOB), 64 * KB)
        assert before.try_open()
        finished = [part for part in range(16) if part not in before.unfinished]
        before.close()
        assert finished
        server.asked.clear()
        server.per_second = 0
        steps_after = await got(net, server, library)
        assert (steps_after[0].completed or 0) >= 300 * KB
        begun = {start // (64 * KB) for start, _ in filter(None, server.asked)}
        assert begun.isdisjoint(finished)


# ------------------------------------------------------------------------------------------------------ killed pulls

CHILD = """
import asyncio, sys
from pathlib import Path
from yarl import URL
from fakes.blob_server import BlobOrigin
from puna.model.digest import Digest
from puna.sources.download import Parts, download
from puna.sources.net import Net
from puna.store.library import Library

async def main(url, digest, size, models):
    net = Net()
    print("began", flush=True)
    async for _ in download(net, BlobOrigin(net, URL(url)), Digest.parse(digest), int(size), Library.open(Path(models)),
                            parts=Parts(least=16384, most=16384, parallel=4)):
        pass
    await net.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def begun(server: BlobServer, library: Library) -> asyncio.subprocess.Process:
    """A download in a process of its own, which has started up."""
    arguments = (str(server.url), str(server.digest), str(len(server.data)), str(library.root))
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, *arguments),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"began\n"
    return child


async def test_killed_at_any_instant(tmp_path: Path) -> None:
    """Pulls through a slow link, killed at random instants: nothing that was finished is asked for again."""
    choose = random.Random(7)
    blob = choose.randbytes(600 * KB)
    part = 16 * KB
    kills, library = 0, Library.open(tmp_path / "models0")
    async with BlobServer(blob, per_second=300_000).serving() as server:
        for run in range(RUNS):
            if library.blobs.has(server.digest):
                library = Library.open(tmp_path / f"models{run}")
            partial = Partial(library.partials, server.digest, len(blob), part)
            kept: dict[int, int] = {}
            if partial.directory.exists():
                assert partial.try_open()
                kept = dict(enumerate(partial.done))
                partial.close()
            server.asked.clear()
            child = await begun(server, library)
            try:
                await asyncio.wait_for(child.wait(), choose.uniform(0, 0.7))
            except asyncio.TimeoutError:
                with suppress(ProcessLookupError):  # it ended in this very moment
                    child.send_signal(signal.SIGKILL)
                await child.wait()
                kills += 1
            for start, end in filter(None, server.asked):
                assert start >= start // part * part + kept.get(start // part, 0)
                assert end <= len(blob)
        server.per_second = 0
        for models in tmp_path.iterdir():
            library = Library.open(models)
            if not library.blobs.has(server.digest):
                child = await begun(server, library)
                assert await child.wait() == 0
            assert stored(library, server)
            remove_leftover(library.partials, server.digest)  # as a pull does that finds the blob
            assert [name for name in files(library) if "verified" not in name] == [f"blobs/{server.digest.filename}"]
            assert not library.partials.exists()
    assert kills >= RUNS // 3


def test_a_kill_after_the_last_part_was_removed(library: Library) -> None:
    library.partials.mkdir(parents=True)
    remove_leftover(library.partials, Digest.of(b""))
    assert not library.partials.exists()


def test_a_part_is_let_go_of_from_another_thread(library: Library) -> None:
    """Threads write, and the event loop closes: who tries again in the same process must not wait for himself."""
    digest = BlobServer(BLOB).digest
    first, again = (Partial(library.partials, digest, len(BLOB), 64 * KB) for _ in range(2))
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(first.try_open).result()
        assert not again.try_open()
        held = first._held  # as the traceback of an error does
        first.close()
        assert held is not None
        assert again.try_open()
        threads.submit(again.remove).result()
    assert first.try_open()
    first.remove()
