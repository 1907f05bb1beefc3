"""The engine alone, without server and sampler, beside llama.cpp's batched bench built for this processor; in turn.

    python bench/engine.py MODEL.gguf… [--rows 1,4,8,16,32] [--source 'DIR [ARGUMENTS]']… [--rounds 7] [--quick]
                                       [--no-llama] [--chunk 256] [--log FILE]

Decode: tokens a second of so many sequences at once, their contexts 128 to 176 tokens long, mean of 48 steps; one at
1,984 to 2,016. Prompt: tokens a second of 1,250 tokens; ours in chunks as the loop makes them, the others in batches as
they are set. Logits are computed of each decoded row and of a prompt's last, in all of them.

llama.cpp is `bench/native_llama.py`'s; each `--source` is one more, built from that directory, started with those
arguments. Prints the ratio of ours to each within a round, and the share of the floor: a token must read each weight
and its context's keys and values once, which takes as long as memory takes to bring them.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from machine import CORES, PATIENCE
from native_llama import build
from puna.engine.cpu import library
from puna.engine.cpu.forward import Forward
from puna.engine.cpu.memory import room
from puna.model.gguf import read_header
from rounds import Rounds, Take

CONTEXT, STEPS = 128, 48
LONG, LONG_STEPS = 1984, 32
PROMPT = 1250
CHUNK = 256
LIMIT = 600
"""Seconds that one run of a batched bench may take."""

ENOUGH = 0.3
"""Seconds that our decoding is measured at least, again and again from the same context on; the median counts."""

READ = 512 << 20
"""Bytes that are read to learn memory's speed: far more than caches hold."""

OURS = "puna"
Whole = NDArray[np.int32]


class Ours:
    """Our forward pass over a file, with room for `rows` sequences, and one long one, whose contexts are computed."""

    def __init__(self, file: Path, rows: int, *, long: bool, chunk: int) -> None:
        self.long = long
        self._header = read_header(file, arrays=True)
        self._forward = Forward(file, self._header, threads=CORES, num_ctx=LONG + LONG_STEPS)
        size = self._forward.block_size
        self._short, self._long = -(-(CONTEXT + STEPS) // size), -(-max(LONG + LONG_STEPS, PROMPT) // size)
        self._chunk = chunk
        self._random = np.random.default_rng(0)
        self._far = room(READ)
        self._far[:] = 1
        self._forward.allocate(rows * self._short + self._long)
        self._tables = [self._span(n * self._short, self._short) for n in range(rows)]
        self._table = self._span(rows * self._short, self._long)
        for table in self._tables:
            self._compute(table, CONTEXT)
        if long:
            self._compute(self._table, LONG)

    def close(self) -> None:
        self._forward.close()

    def read_speed(self) -> float:
        """Bytes of memory a second, as the library's threads read weights; at best of four."""
        read = library.load().puna_read
        best = 0.0
        for _ in range(4):
            began = time.perf_counter()
            if read(self._forward._engine, self._far.ctypes.data, READ):
                raise RuntimeError("the library does not read")
            best = max(best, READ / (time.perf_counter() - began))
        return best

    def decode(self, rows: int) -> float:
        """Tokens a second of so many sequences together."""
        return self._decode(self._tables[:rows], CONTEXT, STEPS)

    def decode_long(self) -> float:
        return self._decode([self._table], LONG, LONG_STEPS)

    def prompt(self) -> float:
        """Tokens a second, in the long sequence's blocks: what they held does not matter to its speed."""
        began = time.perf_counter()
        self._compute(self._table, PROMPT)
        return PROMPT / (time.perf_counter() - began)

    def bytes_a_token(self, context: int) -> float:
        """What one token must read: each weight as the file holds it, and the keys and values of its context."""
        tensors = {tensor.name: tensor.size for tensor in self._header.tensors}
        untied = "output.weight" in tensors
        weights = sum(size for name, size in tensors.items() if not (untied and name == "token_embd.weight"))
        return weights + self._forward.bytes_per_block / self._forward.block_size * context

    def _span(self, start: int, count: int) -> Whole:
        return np.arange(start, start + count, dtype=np.int32)

    def _ids(self, count: int) -> Whole:
        return self._random.integers(0, self._forward.vocabulary, count).astype(np.int32)

    def _compute(self, table: Whole, tokens: int) -> None:
        """A prompt of so many tokens, in chunks; the logits of its last."""
        for start in range(0, tokens, self._chunk):
            count = min(self._chunk, tokens - start)
            rows = [count - 1] if start + count == tokens else []
            self._forward(self._ids(count), [start], [0, count], table, [0, len(table)], rows)

    def _decode(self, tables: list[Whole], context: int, steps: int) -> float:
        rows = len(tables)
        begins, every = list(range(rows + 1)), list(range(rows))
        blocks = np.concatenate(tables)
        edges = [n * len(tables[0]) for n in range(rows + 1)]
        rates, end = [], time.perf_counter() + ENOUGH
        while not rates or time.perf_counter() < end:
            ids = [self._ids(rows) for _ in range(steps)]
            began = time.perf_counter()
            for step in range(steps):
                self._forward(ids[step], [context + step] * rows, begins, blocks, edges, every)
            rates.append(rows * steps / (time.perf_counter() - began))
        return statistics.median(rates)

    def _step(
        self, ids: Whole, past: list[int], begins: list[int], blocks: Whole, edges: list[int], rows: list[int]
    ) -> None:
        self._forward(ids, past, begins, blocks, edges, rows)


@dataclass(frozen=True, slots=True)
class BatchedBench:
    """A build of llama-batched-bench, and what it is started with besides."""

    name: str
    program: Path
    arguments: tuple[str, ...] = ()

    def decode(self, file: Path, rows: int) -> float:
        return self._run(file, rows, CONTEXT, STEPS)["S_TG t/s"]

    def decode_long(self, file: Path) -> float:
        return self._run(file, 1, LONG, LONG_STEPS)["S_TG t/s"]

    def prompt(self, file: Path) -> float:
        return self._run(file, 1, PROMPT, 1)["S_PP t/s"]

    def _run(self, file: Path, rows: int, context: int, steps: int) -> dict[str, float]:
        """The only row of the table that it prints. RuntimeError if there is none."""
        room = -(-rows * (context + steps + 16) // 256) * 256
        sizes = ["-c", room, "-npp", context, "-ntg", steps, "-npl", rows, "-t", CORES, "-tb", CORES, "-fa", "on"]
        command = [self.program, "-m", file.resolve(), *sizes, *self.arguments]
        words = [str(word) for word in command]
        # Some write a log where they are started.
        done = subprocess.run(
            words, cwd=self.program.parent, capture_output=True, text=True, check=False, timeout=LIMIT
        )
        printed = done.stdout + done.stderr
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line[:1] == "|"]
        if done.returncode or len(cells) != 3:
            raise RuntimeError(f"{command} ended with {done.returncode}: {printed[-1000:]}")
        return {head: float(cell) for head, cell in zip(cells[0], cells[2], strict=True)}


def peers(sources: list[str]) -> list[BatchedBench]:
    """llama.cpp, then a further build for each `DIR [ARGUMENTS]`."""
    program = "llama-batched-bench"
    found = [BatchedBench("llama.cpp", build().program(program))]
    for source in sources:
        folder, *arguments = shlex.split(source)
        name = " ".join([Path(folder).resolve().name, *arguments])
        found.append(BatchedBench(name, build(Path(folder)).program(program), tuple(arguments)))
    return found


def measure(file: Path, ours: Ours, rows: list[int], others: list[BatchedBench], rounds: Rounds, count: int) -> None:
    """`count` rounds of every figure; prints the shares of the floor."""
    title = file.stem
    floors: dict[str, float] = {}

    def turn(what: str, mine: Take, theirs: Callable[[BatchedBench], float]) -> None:
        takes: dict[str, Take] = {OURS: mine}
        takes |= {peer.name: lambda peer=peer: theirs(peer) for peer in others}
        rounds.round(what, takes)

    for _ in range(count):
        for number in rows:
            what = f"{title}: {number} row{'s' * (number > 1)}"
            turn(what, lambda n=number: ours.decode(n), lambda peer, n=number: peer.decode(file, n))
            if number == 1:
                floors[what] = ours.bytes_a_token(CONTEXT + STEPS // 2)
        if ours.long:
            what = f"{title}: 1 row at 2,000"
            turn(what, ours.decode_long, lambda peer: peer.decode_long(file))
            floors[what] = ours.bytes_a_token(LONG)
        turn(f"{title}: prompt of {PROMPT:,}", ours.prompt, lambda peer: peer.prompt(file))
    for what, size in floors.items():
        shares = [one.values[OURS] * size / one.speed for one in rounds.counted(what)]
        print(f"{what}: {size / 1e6:.0f} MB a token, {100 * statistics.median(shares):.0f} % of the floor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rows", default="1,4,8,16,32")
    parser.add_argument("--source", action="append", default=[], help="a directory to build one more peer from")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--chunk", type=int, default=CHUNK, help="tokens of a prompt that we compute in a step")
    parser.add_argument("--quick", action="store_true", help="1 and 16 rows and the prompt, twice, quiet or not")
    parser.add_argument("--no-llama", action="store_true", help="ours alone")
    parser.add_argument("--log", type=Path, help="a file that gets each round as a line of JSON")
    said = parser.parse_args()
    rows = [1, 16] if said.quick else [int(n) for n in said.rows.split(",")]
    others = [] if said.no_llama else peers(said.source)
    names = [OURS, *(peer.name for peer in others)]
    for file in said.files:
        ours = Ours(file, max(rows), long=not said.quick, chunk=said.chunk)
        rounds = Rounds(names, log=said.log, patience=0 if said.quick else PATIENCE, speed=ours.read_speed)
        measure(file, ours, rows, others, rounds, 2 if said.quick else said.rounds)
        print(f"\n{rounds.table()}\n")
        ours.close()


if __name__ == "__main__":
    main()
