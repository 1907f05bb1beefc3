"""Servers side by side: Puna with each engine, the bare engine, and Ollama if given; in turn, on one file.

    python bench/serve.py MODEL.gguf [--streams 1,4,16] [--engines llama,cpu] [--repeat 5] [--quick] [--socket]
                                     [--ollama PATH]

Every server is started once; each repetition then takes one figure after the other, of all servers in turn, forwards
and backwards, so that a slow second of the machine hits all alike. Prints medians, and the median of the ratios to the
bare engine in the same round. Nothing else may run meanwhile. All are asked over TCP, as clients do; `--socket` shows
what that costs the bare engine.

Decode: tokens a second of all streams together, from the first token of any to the last of all. First token: of one
short, never seen prompt. Prompt: tokens a second over a prompt of about 1,250 tokens. Among 15 others: median first
token of five requests that arrive one by one once all others speak. Every server is told the same sampler settings.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from load import FEW, LATE, Target, first_among, many, total_rate
from servers import bare, memory, ollama, puna

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


def prompts(count: int, run: int) -> list[str]:
    """`count` short prompts that no server has seen before: the run's number comes first."""
    return [
        f"Run {run}.{i}: tell me a story about {WORDS[i % len(WORDS)]} and number {i * 37 + run}." for i in range(count)
    ]


def long_prompt(run: int) -> str:
    """About 1,250 tokens of plain text."""
    return f"Run {run}. " + " ".join(f"In chapter {i} they spoke of {WORDS[i % 8]} again." for i in range(95))


def import_model(models: Path, file: Path) -> None:
    """Put the file into the store under MODEL, through the command itself."""
    modelfile = models / "Modelfile"
    modelfile.write_text(f"FROM {file.resolve()}\n")
    with puna("import", MODEL, models, "llama", 1, CONTEXT) as (target, _):
        subprocess.run(
            [sys.executable, "-m", "puna", "create", MODEL, "-f", str(modelfile)],
            env={**os.environ, "PUNA_HOST": target.url.removeprefix("http://")},
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def unload(target: Target) -> None:
    body = json.dumps({"model": target.model, "keep_alive": 0}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{target.url}/api/generate", body)).read()


Measure: TypeAlias = Callable[[Target, int], float]
"""One figure of one server. The number makes the prompts new; no number may come twice."""


def measures(streams: list[int], tokens: int, *, quick: bool = False) -> dict[str, tuple[Measure, int]]:
    """What is measured, and how many times a repetition: short ones more often, for they vary more.

    `quick`: each once, and nothing of first tokens; for models of which a repetition would take half an hour.
    """
    found: dict[str, tuple[Measure, int]] = {}
    if quick:
        for count in streams:
            found[_decode(count)] = (decode_rate(count, tokens), 1)
        return {**found, PROMPT: (prompt_rate, 1)}
    for count in streams:
        found[_decode(count)] = (decode_rate(count, tokens), max(8 // count, 2))
    found["first token, short prompt (ms)"] = (first_token, 16)
    found[PROMPT] = (prompt_rate, 1)
    if max(streams) >= 16:
        found["first token among 15 others (ms)"] = (first_token_among, 1)
    return found


PROMPT = "prompt of ~1,250 tokens (tok/s)"


def _decode(count: int) -> str:
    return f"decode, {count} stream{'s' * (count > 1)} (tok/s)"


def decode_rate(count: int, tokens: int) -> Measure:
    return lambda target, run: total_rate(asyncio.run(many(target, prompts(count, run * 1000 + count), tokens)))


def first_token(target: Target, run: int) -> float:
    return 1000 * asyncio.run(many(target, prompts(1, run * 1000), FEW))[0].time_to_first


def prompt_rate(target: Target, run: int) -> float:
    long = asyncio.run(many(target, [long_prompt(run)], FEW))[0]
    return long.prompt_tokens / long.time_to_first


def first_token_among(target: Target, run: int) -> float:
    others, late = prompts(15, run * 1000 + 900), prompts(LATE, run * 1000 + 901)
    return 1000 * asyncio.run(first_among(target, others, late, OTHERS_TOKENS))


def bandwidth(threads: int = 2) -> float:
    """Bytes a second that `threads` threads read from memory, at best of five."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy

    arrays = [numpy.ones(64 * 1024 * 1024, numpy.float32) for _ in range(threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            began = time.perf_counter()
            list(pool.map(numpy.max, arrays))
            best = max(best, sum(a.nbytes for a in arrays) / (time.perf_counter() - began))
    return best


def table(rows: dict[str, dict[str, list[float]]], names: list[str], base: str) -> str:
    """Medians, and behind each the median of its ratios to `base` in the same round, a few seconds away."""
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for what, by_name in rows.items():
        cells = []
        for name in names:
            if name not in by_name:
                cells.append("–")
                continue
            value = statistics.median(by_name[name])
            rounds = [ours / theirs for ours, theirs in zip(by_name[name], by_name.get(base, ()), strict=False)]
            ratio = f" ({statistics.median(rounds):.3f})" if rounds and name != base else ""
            cells.append(f"{value:,.1f}{ratio}")
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--streams", default="1,16")
    parser.add_argument("--engines", default="llama")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--slots", type=int, default=0, help="slots of every engine; default: most streams")
    parser.add_argument("--fast", action="store_true", help="start the bare engine without what keeps seeds exact")
    parser.add_argument("--quick", action="store_true", help="each figure once a repetition, none of first tokens")
    parser.add_argument("--socket", action="store_true", help="the bare engine a second time, over a Unix socket")
    parser.add_argument("--ollama", type=Path, help="a path to a real ollama binary")
    arguments = parser.parse_args()
    streams = [int(n) for n in arguments.streams.split(",")]
    slots = arguments.slots or max(streams)
    rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    with tempfile.TemporaryDirectory(prefix="puna-bench-") as folder, contextlib.ExitStack() as stack:
        models = Path(folder)
        import_model(models, arguments.file)
        targets: list[Target] = []
        for engine in arguments.engines.split(","):
            name = f"puna {engine}"
            target, ready = stack.enter_context(puna(name, MODEL, models, engine, slots, CONTEXT))
            rows["`puna serve` to ready (ms)"][name].append(ready * 1000)
            rows["server alone, resident (MB)"][name].append(memory(target.pids)[0] / 1e6)
            targets.append(target)
        bare_name = "bare llama server"
        exact = not arguments.fast
        targets.append(stack.enter_context(bare(bare_name, arguments.file, slots, CONTEXT, exact=exact)))
        if arguments.socket:
            name = "bare, Unix socket"
            targets.append(stack.enter_context(bare(name, arguments.file, slots, CONTEXT, exact=exact, private=True)))
        if arguments.ollama:
            targets.append(stack.enter_context(ollama(arguments.ollama, models, MODEL, slots, CONTEXT)))
        for target in targets:
            if target.name.startswith("puna"):
                for _ in range(arguments.repeat):
                    unload(target)
                    cold = asyncio.run(many(target, prompts(1, 1), FEW))[0].time_to_first
                    rows["cold model to first token (ms)"][target.name].append(1000 * cold)
            asyncio.run(many(target, prompts(slots, 2), 8))
        numbers = itertools.count(3)
        for _ in range(arguments.repeat):
            for what, (measure, rounds) in measures(streams, arguments.tokens, quick=arguments.quick).items():
                for _ in range(rounds):
                    run = next(numbers)
                    for target in targets if run % 2 else reversed(targets):
                        rows[what][target.name].append(measure(target, run))
        for target in targets:
            resident, anonymous = memory(target.pids)
            rows["with its model, resident (MB)"][target.name].append(resident / 1e6)
            rows["with its model, anonymous (MB)"][target.name].append(anonymous / 1e6)
        print(table(rows, [t.name for t in targets], bare_name))
        floor = bandwidth()
        size = arguments.file.stat().st_size
        print(f"\nmemory reads {floor / 1e9:.1f} GB/s: a token of one stream costs the weights once, "
              f"{size / 1e6:.0f} MB, so at most {floor / size:.0f} tok/s")  # fmt: skip


if __name__ == "__main__":
    main()
