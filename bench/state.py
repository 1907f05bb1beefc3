"""How long it takes to keep, read and list answers when there are many: python bench/state.py [--records 100000]

Each is as a response of some length is kept. No yardstick: what is asked for is a page in 20 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from puna.state.records import Put, Query, Record
from puna.state.sqlite import FILE_NAME, SqliteState
from puna.state.state import StateLimits

BODY_BYTES = 2000
TOGETHER = 1000
ROUNDS = 50


def response(number: int) -> Record:
    """One of a chain of fifty."""
    return Record(
        kind="response",
        id=f"resp_{number:08d}",
        owner="one",
        body={
            "id": f"resp_{number:08d}",
            "text": "x" * BODY_BYTES,
            "metadata": {"group": str(number % 1000)},
            "model": "m",
        },
        created=1_000_000.0 + number,
        expires=9e9,
        previous=f"resp_{number - 1:08d}" if number % 50 else "",
    )


async def milliseconds(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """The median and the longest of ROUNDS."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await work()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times), max(times)


async def measure(directory: Path, records: int) -> None:
    async with SqliteState(directory, StateLimits(records=0, bytes=0, seconds=0)) as state:
        began = time.perf_counter()
        for start in range(0, records, TOGETHER):
            await state.apply(*[Put(response(number)) for number in range(start, min(start + TOGETHER, records))])
        print(
            f"{records} kept in {time.perf_counter() - began:.1f} s, {(directory / FILE_NAME).stat().st_size >> 20} MiB"
        )
        middle = f"resp_{records // 2:08d}"
        last = f"resp_{records - 1:08d}"
        further = iter(range(records, 10**9))
        works: dict[str, Callable[[], Awaitable[object]]] = {
            "the newest page": lambda: state.page("response", "one", Query()),
            "a page in the middle": lambda: state.page("response", "one", Query(after=middle)),
            "a page of 100, oldest first": lambda: state.page(
                "response", "one", Query(limit=100, newest_first=False, after=middle)
            ),
            "a page by metadata": lambda: state.page("response", "one", Query(where={"group": "17"})),
            "a page of a model that none has": lambda: state.page("response", "one", Query(having={"model": "n"})),
            "one": lambda: state.get("response", middle, "one"),
            "a chain of 50": lambda: state.chain("response", last, "one"),
            "keep one more": lambda: state.apply(Put(response(next(further)))),
        }
        for name, work in works.items():
            median, longest = await milliseconds(work)
            print(f"{name:<30} {median:7.2f} ms, at most {longest:7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(Path(directory), parser.parse_args().records))


if __name__ == "__main__":
    main()
