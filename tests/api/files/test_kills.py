"""A batch outlives its servers: killed again and again, and every line is there once.

`PUNA_TEST_BATCH_LINES=1000` makes it so many lines.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openai import OpenAI

from fakes.batches import ended, line, rows, submit
from fakes.waiting import until

LINES = int(os.environ.get("PUNA_TEST_BATCH_LINES", "60"))
KILLS = 5 if LINES >= 1000 else 2
SCRIPT = {"default": {"text": "one two three", "delay": 0.005}}


@contextmanager
def served(store: Path, directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], OpenAI]]:
    """A server's process, killed at the end, and a client of it."""
    (directory / "script.json").write_text(json.dumps(SCRIPT))
    environment = {
        "HOME": str(directory), "PUNA_MODELS": str(store), "PUNA_ENGINE": "scripted", "PUNA_HOST": "127.0.0.1:0",
        "PUNA_SCRIPT": str(directory / "script.json"), "PUNA_STATE": str(directory / "state"), "PUNA_NOPRUNE": "1",
    }  # fmt: skip
    log = directory / f"log-{len([*directory.iterdir()])}"
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "puna", "serve"], env=environment, stderr=file)
        try:
            until(lambda: process.poll() is not None or b"listens on" in log.read_bytes(), 150, "a server")
            url = log.read_text().split("listens on ")[1].split()[0]
            with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as openai:
                yield process, openai
        finally:
            process.kill()
            process.wait()


def completed(openai: OpenAI, batch: str) -> int:
    return openai.batches.retrieve(batch).request_counts.completed


def test_every_line_once_however_often_it_is_killed(store, tmp_path):
    chance = random.Random(17)
    names = {f"line {number}" for number in range(LINES)}
    with served(store, tmp_path) as (_, openai):
        batch = submit(openai, [line(name) for name in sorted(names)])
    seen = 0
    for _ in range(KILLS):
        with served(store, tmp_path) as (_, openai):
            goal = seen + chance.randint(1, LINES // (KILLS + 1))
            until(lambda goal=goal, openai=openai: completed(openai, batch.id) >= goal, 150, "some lines")
            seen = completed(openai, batch.id)
    with served(store, tmp_path) as (_, openai):
        assert completed(openai, batch.id) >= seen
        batch = ended(openai, batch)
        assert batch.request_counts.model_dump() == {"total": LINES, "completed": LINES, "failed": 0}
        assert batch.usage.output_tokens == 3 * LINES
        assert rows(openai, batch.output_file_id).keys() == names


def test_two_servers_do_not_answer_one_batch(store, tmp_path):
    names = {f"line {number}" for number in range(40)}
    with served(store, tmp_path) as (first, one), served(store, tmp_path) as (_, two):
        batch = submit(one, [line(name) for name in names])
        until(lambda: completed(two, batch.id) > 2, 150, "some lines")
        first.kill()  # the other takes over
        first.wait()
        batch = ended(two, batch)
        assert batch.request_counts.completed == 40
        assert rows(two, batch.output_file_id).keys() == names
