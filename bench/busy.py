"""Servers beside programs that loop: what is left of an answer when others use the processors; in turn.

    python bench/busy.py MODEL.gguf [--servers default,native] [--streams 1,16] [--neighbours 0,1,2] [--repeat 3]
                                    [--seconds 10] [--quick]

A neighbour is a program that loops and does nothing else, at the same priority. Every figure is tokens a second of all
streams together, of answers of 256 tokens each, which are left so many seconds after the first of them spoke: some
servers would take minutes. Prints medians, ratios of the first server to each within a round (servers as in
bench/serve.py), and what is left of the rate without neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from load import many, rate_within
from rounds import Rounds
from serve import import_model, prompts, started
from servers import Server

TOKENS = 256
LOOP = "print(flush=True)\nwhile True: pass"


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many programs that loop, each since before this goes on."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
        yield


def rate(server: Server, streams: int, run: int, seconds: float) -> float:
    return asyncio.run(rate_within(server.target, prompts(streams, run * 1000), TOKENS, seconds))


def title(streams: int, count: int) -> str:
    others = "no neighbour" if not count else f"{count} neighbour{'s' * (count > 1)}"
    return f"{streams} stream{'s' * (streams > 1)}, {others} (tok/s)"


def left(rounds: Rounds, streams: int, count: int) -> str:
    """What the neighbours leave of each server's rate, by medians over the same repetitions."""
    idle, busy = rounds.taken[title(streams, 0)], rounds.taken[title(streams, count)]
    shares = {
        name: statistics.median(
            with_them.values[name] / alone.values[name] for alone, with_them in zip(idle, busy, strict=True)
        )
        for name in rounds.names
    }
    told = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
    return f"{title(streams, count)}, of the rate without: {told}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--servers", default="default,native")
    parser.add_argument("--streams", default="1,16")
    parser.add_argument("--neighbours", default="0,1,2")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--quick", action="store_true", help="one stream, once, 4 seconds")
    parser.add_argument("--log", type=Path, help="a file that gets each round as a line of JSON")
    said = parser.parse_args()
    streams = [1] if said.quick else [int(n) for n in said.streams.split(",")]
    counts = sorted({0, *(int(n) for n in said.neighbours.split(","))})
    seconds = 4.0 if said.quick else said.seconds
    kinds = said.servers.split(",")
    with tempfile.TemporaryDirectory(prefix="puna-bench-") as folder, contextlib.ExitStack() as stack:
        models = Path(folder)
        import_model(models, said.file)
        servers = [stack.enter_context(started(kind, said.file, models, max(streams))) for kind in kinds]
        names = [server.name for server in servers]
        # The neighbours take what they take: no round waits for quiet, and none is left out.
        rounds = Rounds(
            names,
            {server.name: server.target.pids for server in servers},
            said.log,
            patience=0,
        )
        for server in servers:
            asyncio.run(many(server.target, prompts(max(streams), 2), 8))
        run = 3
        for _ in range(1 if said.quick else said.repeat):
            for count in counts:
                with neighbours(count):
                    for number in streams:
                        run += 1
                        takes = {server.name: partial(rate, server, number, run, seconds) for server in servers}
                        rounds.round(title(number, count), takes)
        print(f"\n{said.file.name}\n\n{rounds.table()}\n")
        for number in streams:
            for count in counts[1:]:
                print(left(rounds, number, count))


if __name__ == "__main__":
    main()
