"""A chain of responses, with tools and streams, on a server that is killed and started again at random instants."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from .conftest import Program, serve

TURNS = int(os.environ.get("PUNA_TEST_CHAIN", "5"))
"""Responses of the chain. The promise is 50: `PUNA_TEST_CHAIN=50 pytest -n 0 tests/real/test_chain.py`."""

ENGINE = os.environ.get("PUNA_TEST_CHAIN_ENGINE", "cpu")
"""Which engine makes them: `llama` is the other."""

SEED = int(os.environ.get("PUNA_TEST_CHAIN_SEED", "25"))
BLOCK = 64
"""Tokens that a cache may round down by."""

TOOL: Any = {
    "type": "function",
    "name": "note",
    "description": "Keeps a word.",
    "parameters": {"type": "object", "properties": {"word": {"enum": ["one", "two"]}}, "required": ["word"]},
}
FIELDS: Any = {
    "model": "smollm2",
    "temperature": 0,
    "max_output_tokens": 8,
    "instructions": "Be brief.",
    "tools": [TOOL],
}


class Server:
    """One after another over the same state."""

    def __init__(self, models: Path, directory: Path) -> None:
        self._models = models
        self._directory = directory
        self._settings = {
            "PUNA_ENGINE": ENGINE,
            "PUNA_STATE": str(directory / "state"),
            "PUNA_CACHE_DIR": str(directory / "cache"),
            "PUNA_CACHE_DISK": str(1 << 30),
        }
        self._stack = contextlib.ExitStack()
        self.starts = 0
        self.program = self.start()

    def start(self) -> Program:
        self._stack.close()
        self.starts += 1
        log = self._directory / f"log{self.starts}"
        self.program = self._stack.enter_context(serve(self._models, log, **self._settings))
        return self.program

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def server(pulled: Path, tmp_path: Path) -> Iterator[Server]:
    shutil.copytree(pulled, tmp_path / "models")
    own = Server(tmp_path / "models", tmp_path)
    yield own
    own.close()


def calls(turn: int) -> bool:
    """Each third response is a call."""
    return turn % 3 == 1


def ask(program: Program, turn: int, asked: list[Any], **more: Any) -> Any:
    """One response; every other one streams."""
    fields = {**FIELDS, "tool_choice": "required" if calls(turn) else "none", **more}
    if turn % 2 == 0:
        return program.client.responses.create(input=asked, **fields)
    with program.client.responses.create(input=asked, stream=True, **fields) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type in {"response.completed", "response.incomplete"}
    return events[-1].response


def killed(server: Server, turn: int, asked: list[Any], instant: float, **more: Any) -> Any | None:
    """The response, if it came before the server was killed; None if not."""
    timer = threading.Timer(instant, server.program.process.kill)
    timer.start()
    response = None
    with contextlib.suppress(openai.OpenAIError, httpx.HTTPError, IndexError):
        response = ask(server.program, turn, asked, **more)
    timer.join()
    server.program.process.wait()
    server.start()
    return response


def said(response: Any) -> list[tuple[str, str, str]]:
    """What an answer is, without ids."""
    return [
        (item.type, "", item.content[0].text) if item.type == "message" else (item.type, item.name, item.arguments)
        for item in response.output
    ]


def results(previous: Any | None) -> list[Any]:
    """What the calls of a response have come to."""
    made = [item for item in previous.output if item.type == "function_call"] if previous is not None else []
    return [{"type": "function_call_output", "call_id": call.call_id, "output": "kept"} for call in made]


def test_each_answer_is_that_of_the_conversation_sent_whole(server: Server) -> None:
    """And only what is new is computed: what the answer before has left is there. After a kill all but the last of it
    may be asked for, since its last blocks may not have been on the disk yet.
    """
    chance = random.Random(SEED)
    fatal = set(chance.sample(range(1, TURNS), max(2, TURNS // 5)))
    sent: list[Any] = []
    turns: list[tuple[list[Any], Any]] = []
    # With the tools in it or without, a prompt begins otherwise: two of a kind have the same beginning.
    left: dict[bool, list[int]] = {True: [0, 0], False: [0, 0]}
    previous, here = None, set[bool]()
    for turn in range(TURNS):
        asked = [*results(previous), {"role": "user", "content": f"Say something about the number {turn}."}]
        goes_on = {"previous_response_id": previous.id} if previous is not None else {}
        response = killed(server, turn, asked, chance.uniform(0, 1), **goes_on) if turn in fatal else None
        lives, kind = response is None, left[calls(turn)]
        here -= {True, False} if turn in fatal else set()
        if response is None:
            response = ask(server.program, turn, asked, **goes_on)
            cached = response.usage.input_tokens_details.cached_tokens
            assert cached >= kind[-1 if calls(turn) in here else -2] - BLOCK, (turn, kind, cached)
        here |= {calls(turn)} if lives else set()
        kind.append(response.usage.total_tokens)
        turns.append(([*sent, *asked], response))
        sent += [*asked, *(item.model_dump(exclude_none=True) for item in response.output)]
        previous = response
    assert server.starts == len(fatal) + 1
    for turn, (whole, response) in enumerate(turns):
        assert said(ask(server.program, turn, whole, store=False)) == said(response), turn
