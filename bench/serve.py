"""Servers side by side, on one file: Puna as users get it, llama.cpp's server built for this processor, and others.

    python bench/serve.py MODEL.gguf [--servers default,native] [--streams 1,16] [--repeat 5] [--quick] [--log FILE]

Servers: `default` is Puna with every setting at its default; `cpu` and `llama` Puna with that engine and as many slots
as there are streams at most; `native` llama.cpp's server, built by `bench/native_llama.py`, with as many slots; `wheel`
the bare engine that Puna's own engine `llama` starts, with the options that it uses (`wheel-fast`: without what keeps
seeds exact, `wheel-socket`: over a Unix socket); `ollama:PATH` a real Ollama.

Every server is started once; each repetition then takes one figure after the other, of all servers in turn, forwards
and backwards, so that a slow second of the machine hits all alike. Prints medians, and behind each how many times it
the first server's figure is (the median of the ratios within a round), with the speed of memory in those rounds and
what others took of the processors. All are asked over TCP, as clients do, and told the same sampler settings.

Decode: tokens a second of all streams together, from the first token of any to the last of all. First token: of one
short, never seen prompt. Prompt: tokens a second over a prompt of about 1,250 tokens. Among 15 others: median first
token of five requests that arrive one by one once all others speak. Later turn: first token of the third turn of a
conversation of about 600 tokens. Not loaded: from a model that is not in memory, its file in the system's cache, to a
first token; for llama.cpp's server from its start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

from load import FEW, LATE, first_among, later_turn, many, total_rate
from machine import PATIENCE
from native_llama import build
from rounds import Rounds
from servers import Server, bare, cache, first_token, memory, native, ollama, puna

WORDS = (
    "the river",
    "a lantern",
    "seven ships",
    "old maps",
    "quiet rooms",
    "green glass",
    "a letter",
    "the north wind",
)
MODEL = "bench-model"
CONTEXT = 2048

OTHERS_TOKENS = 160
"""Tokens of each answer that goes on while others arrive: enough to outlast them."""

ANSWER = 120
"""Tokens of each answer of a conversation."""

ALONE = "server alone, anonymous (MB)"


def prompts(count: int, run: int) -> list[str]:
    """`count` short prompts that no server has seen before: the run's number comes first."""
    return [
        f"Run {run}.{i}: tell me a story about {WORDS[i % len(WORDS)]} and number {i * 37 + run}." for i in range(count)
    ]


def long_prompt(run: int) -> str:
    """About 1,250 tokens of plain text."""
    return f"Run {run}. " + " ".join(f"In chapter {i} they spoke of {WORDS[i % 8]} again." for i in range(101))


def conversation(run: int) -> list[str]:
    """Three questions, which with answers of ANSWER tokens to the first two come to about 600 tokens."""
    return [
        f"Run {run}. " + " ".join(f"In chapter {i} they spoke of {WORDS[i % 8]} again." for i in range(14)),
        f"And in run {run} again? " + " ".join(f"In part {i} nobody spoke of {WORDS[i % 8]}." for i in range(12)),
        "What do you make of it all?",
    ]


def import_model(models: Path, file: Path) -> None:
    """Put the file into the store under MODEL, through the command itself."""
    modelfile = models / "Modelfile"
    modelfile.write_text(f"FROM {file.resolve()}\n")
    with puna("import", MODEL, models, {}) as server:
        subprocess.run(
            [sys.executable, "-m", "puna", "create", MODEL, "-f", str(modelfile)],
            env={**os.environ, "PUNA_HOST": server.target.url.removeprefix("http://")},
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@contextlib.contextmanager
def started(kind: str, file: Path, models: Path, slots: int) -> Iterator[Server]:
    """The server of this kind. SystemExit for a kind that is none."""
    with contextlib.ExitStack() as stack:
        match kind.partition(":"):
            case ("default", _, _):
                server = puna("puna", MODEL, models, {})
            case ("cpu" | "llama" as engine, _, _):
                settings = {
                    "PUNA_ENGINE": engine,
                    "PUNA_NUM_PARALLEL": str(slots),
                    "PUNA_CONTEXT_LENGTH": str(CONTEXT),
                }
                server = puna(f"puna {engine}", MODEL, models, settings)
            case ("native", _, _):
                server = native("llama.cpp native", build().program("llama-server"), file, slots, CONTEXT)
            case ("wheel", _, _):
                server = bare("llama.cpp wheel", file, slots, CONTEXT, exact=True)
            case ("wheel-fast", _, _):
                server = bare("llama.cpp wheel, fast", file, slots, CONTEXT, exact=False)
            case ("wheel-socket", _, _):
                server = bare("llama.cpp wheel, socket", file, slots, CONTEXT, exact=True, private=True)
            case ("ollama", ":", path):
                server = ollama(Path(path), models, MODEL, slots, CONTEXT)
            case _:
                raise SystemExit(f"there is no server {kind}")
        yield stack.enter_context(server)


Measure: TypeAlias = Callable[[Server, int], float]
"""One figure of one server. The number makes the prompts new; no number may come twice."""

PROMPT_RATE = "prompt of ~1,250 tokens (tok/s)"
NOT_LOADED = "model not loaded to first token (ms)"
NOT_LOADED_RESTED = "model not loaded to first token, rested (ms)"

RESTED = 3.0
"""Seconds in which a server has prepared for the next model."""


def measures(streams: list[int], tokens: int, *, quick: bool = False) -> dict[str, tuple[Measure, int]]:
    """What is measured, and how many times a repetition: short ones more often, for they vary more.

    `quick`: each once, for a first look.
    """
    found: dict[str, tuple[Measure, int]] = {}
    for count in streams:
        found[f"decode, {count} stream{'s' * (count > 1)} (tok/s)"] = (decode_rate(count, tokens), max(4 // count, 1))
    found["first token, short prompt (ms)"] = (short_prompt, 8)
    found[PROMPT_RATE] = (prompt_rate, 2)
    if max(streams) >= 16:
        found["first token among 15 others (ms)"] = (first_token_among, 1)
    found["first token of a later turn (ms)"] = (later, 2)
    found[NOT_LOADED] = (not_loaded, 2)
    found[NOT_LOADED_RESTED] = (rested, 2)
    return {what: (measure, 1 if quick else times) for what, (measure, times) in found.items()}


def decode_rate(count: int, tokens: int) -> Measure:
    return lambda server, run: total_rate(asyncio.run(many(server.target, prompts(count, run * 1000 + count), tokens)))


def short_prompt(server: Server, run: int) -> float:
    return 1000 * first_token(server.target, prompts(1, run * 1000)[0])


def prompt_rate(server: Server, run: int) -> float:
    long = asyncio.run(many(server.target, [long_prompt(run)], FEW))[0]
    return long.prompt_tokens / long.time_to_first


def first_token_among(server: Server, run: int) -> float:
    others, late = prompts(15, run * 1000 + 900), prompts(LATE, run * 1000 + 901)
    return 1000 * asyncio.run(first_among(server.target, others, late, OTHERS_TOKENS))


def later(server: Server, run: int) -> float:
    return 1000 * asyncio.run(later_turn(server.target, conversation(run), ANSWER)).time_to_first


def not_loaded(server: Server, run: int) -> float:
    return 1000 * server.cold(prompts(1, run * 1000 + 7)[0], 0.0) if server.cold else 0.0


def rested(server: Server, run: int) -> float:
    return 1000 * server.cold(prompts(1, run * 1000 + 8)[0], RESTED) if server.cold else 0.0


def measure_all(rounds: Rounds, servers: list[Server], figures: dict[str, tuple[Measure, int]], repeat: int) -> None:
    run = 3
    for _ in range(repeat):
        for what, (measure, times) in figures.items():
            asked = [server for server in servers if measure not in {not_loaded, rested} or server.cold]
            for _ in range(times):
                run += 1
                rounds.round(what, {server.name: partial(measure, server, run) for server in asked})


def note_memory(rounds: Rounds, server: Server, when: str, size: int) -> None:
    """What its processes hold; of ours, that of the engine's own and without its cache, against the model's file."""
    pids = server.target.pids
    _, anonymous = memory(pids)
    rounds.note(f"anonymous, {when} (MB)", server.name, anonymous / 1e6)
    alone = rounds.median(ALONE, server.name)
    if alone is not None:
        kept = cache(pids)
        rounds.note(f"cache, {when} (MB)", server.name, kept / 1e6)
        engine = anonymous - alone * 1e6 - kept
        rounds.note(f"anonymous of the engine, cache apart, {when} (of the file)", server.name, engine / size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--servers", default="default,native")
    parser.add_argument("--streams", default="1,16")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="of each answer where decoding is measured")
    parser.add_argument("--quick", action="store_true", help="each figure once, quiet or not")
    parser.add_argument("--log", type=Path, help="a file that gets each round as a line of JSON")
    said = parser.parse_args()
    streams = [int(n) for n in said.streams.split(",")]
    kinds = said.servers.split(",")
    size = said.file.stat().st_size

    with tempfile.TemporaryDirectory(prefix="puna-bench-") as folder, contextlib.ExitStack() as stack:
        models = Path(folder)
        import_model(models, said.file)
        servers = [stack.enter_context(started(kind, said.file, models, max(streams))) for kind in kinds]
        rounds = Rounds(
            [server.name for server in servers],
            {server.name: server.target.pids for server in servers},
            said.log,
            0 if said.quick else PATIENCE,
        )
        for server in servers:
            ours = server.name.startswith("puna")
            if ours:
                # Without a child that is kept for the next model: with its first answer it becomes the engine.
                resident, anonymous = memory(server.target.pids, children=False)
                rounds.note("server ready (ms)", server.name, server.ready * 1000)
                rounds.note("server alone, resident (MB)", server.name, resident / 1e6)
                rounds.note(ALONE, server.name, anonymous / 1e6)
            first_token(server.target, prompts(1, 1)[0])
            note_memory(rounds, server, "after a first answer", size)
            asyncio.run(many(server.target, prompts(max(streams), 2), 8))
        figures = measures(streams, said.tokens, quick=said.quick)
        measure_all(rounds, servers, figures, 1 if said.quick else said.repeat)
        for server in servers:
            note_memory(rounds, server, "at the end", size)
        print(f"\n{said.file.name}, {size / 1e6:.0f} MB\n\n{rounds.table()}")


if __name__ == "__main__":
    main()
