"""What a body may cost, measured in the server's own process: memory, and how long its loop works at a time."""

from __future__ import annotations

import gc
import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import pytest

from api.conftest import TinyModel, add_model
from fakes.turns import Turns
from puna.model.name import Name
from puna.server.body import LARGE

MULTIPLE = 64
"""Of a body's bytes, that it may cost."""
BASE = 64 * 2**20
TURN = 0.1
"""Seconds of a processor that the loop may use at a time."""
STALL = 1.0
"""Seconds. A thread that lets nobody else run for so long is at something that should have been done in pieces."""


@dataclass
class Cost:
    """`turn`, `lag`: of the loop (see `Turns`). `memory`: bytes more, at most."""

    turn: float = 0.0
    lag: float = 0.0
    memory: int = 0


@contextmanager
def measured(server) -> Iterator[Cost]:
    """What a server in this process costs while this is entered.

    Other processes may keep this one waiting, and so may the clients, which are in it. So it is not the clock that is
    held to a tenth of a second, but what the loop's own thread did. What earlier tests left is no work of the server's.
    """
    cost, over, turns, process = Cost(), threading.Event(), Turns(), psutil.Process()
    gc.collect()
    gc.freeze()
    before = process.memory_info().rss

    def watch() -> None:
        while not over.wait(0.01):
            cost.memory = max(cost.memory, process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    server.loop.call_soon_threadsafe(turns.begin)
    try:
        yield cost
    finally:
        turns.end()
        over.set()
        watcher.join()
        cost.turn, cost.lag = turns.turn, turns.lag


def chat(*messages: bytes) -> bytes:
    return b'{"model":"tiny","stream":false,"messages":[%s]}' % b",".join(messages)


def fields(text: bytes) -> bytes:
    return b'{"model":"tiny","messages":[{"role":"user","content":"Hi"}],"stream":false,%s}' % text


BODIES = {
    "zeros": chat(*[b"0"] * 500_000),
    "small": chat(*[b"0"] * (LARGE // 2 - 100)),
    "lists": chat(*[b"[]"] * 300_000),
    "objects": chat(*[b"{}"] * 300_000),
    "deep": b'{"a":' * 100_000,
    "names": b"{" + b",".join(b'"%d":0' % number for number in range(45_000)) + b"}",
    "unknown": fields(b",".join(b'"%d":0' % number for number in range(45_000))),
    "bias": fields(b'"logit_bias":{%s}' % b",".join(b'"%d":"x"' % number for number in range(45_000))),
    "options": fields(b'"options":{%s}' % b",".join(b'"%d":"x"' % number for number in range(45_000))),
    "stop": fields(b'"stop":[%s]' % b",".join([b'"a"'] * 300_000)),
    "tools": fields(b'"tools":[%s]' % b",".join([b'{"type":"function","function":{"name":"a"}}'] * 30_000)),
    "parts": chat(b'{"role":"user","content":[%s]}' % b",".join([b'{"type":"text","text":"a"}'] * 100_000)),
    "messages": chat(*[b'{"role":"user","content":"Hello there"}'] * 100_000),
    "calls": chat(
        b'{"role":"user","content":"q"}',
        b'{"role":"assistant","content":"","tool_calls":[%s]}'
        % b",".join(
            b'{"id":"c%d","type":"function","function":{"name":"f","arguments":@}}' % number for number in range(25_000)
        ),
        *[b'{"role":"tool","tool_call_id":"c%d","content":"ok"}' % number for number in range(25_000)],
    ),
    "text": chat(b'{"role":"user","content":"%s"}' % (b"ten bytes " * 2_000_000)),
    "emoji": chat(b'{"role":"user","content":"%s"}' % ("😀".encode() * 2_000_000)),
    "number": b'{"model":%s}' % (b"1" * 1_000_000),
    "numbers": b'{"model":[%s]}' % b",".join([b"1" * 4_000] * 1_000),
    "schema": fields(b'"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":%s}}'
                     % (b'{"type":"object","properties":{"a":' * 60 + b"{}" + b"}}" * 60)),
    "prompt": b'{"model":"tiny","prompt":"%s"}' % (b"ten bytes " * 200_000),
    "inputs": b'{"model":"embedder","input":[%s]}' % b",".join([b'"a"'] * 300_000),
    "ids": b'{"model":"embedder","input":[%s]}' % b",".join([b"1"] * 500_000),
    "stops": fields(b'"options":{"stop":[%s]}' % b",".join(b'"<%d>"' % number for number in range(100_000))),
    "stored": b'{"model":"new","from":"tiny","parameters":{"stop":[%s]}}' % b",".join([b'"a"'] * 300_000),
    "blank": b" " * 10_000_000,
    "garbage": b'{"a":"' + b"\\" * 10_000_000,
}  # fmt: skip


PLACES = {"stored": "/api/create", "inputs": "/v1/embeddings", "ids": "/v1/embeddings", "prompt": "/tokenize"}
NATIVE = ("zeros", "small", "names", "options", "bias", "text", "messages", "calls", "stops")
PATHS = [
    *((name, PLACES.get(name, "/v1/chat/completions")) for name in BODIES),
    *((name, "/api/chat") for name in NATIVE),
]


@pytest.mark.parametrize(("name", "path"), PATHS)
def test_no_body_costs_more_than_it_may(server, name, path):
    body = BODIES[name].replace(b"@", b'"{}"' if path.startswith("/v1") else b"{}")
    with measured(server) as cost:
        answer = server.post(path, body)
    assert answer.status in {200, 400}, answer.body
    assert cost.memory <= MULTIPLE * len(body) + BASE
    assert cost.turn < TURN
    assert cost.lag < STALL


@pytest.mark.parametrize("name", ["text", "zeros"])
def test_many_large_bodies_at_once_keep_nobody_waiting(server, name):
    body, headers = gzip.compress(BODIES[name]), {"content-encoding": "gzip"}
    with measured(server) as cost, ThreadPoolExecutor(4) as clients:
        answers = [*clients.map(lambda _: server.post("/v1/chat/completions", body, headers=headers), range(4))]
    assert {answer.status for answer in answers} == {400}
    assert cost.turn < TURN
    assert cost.lag < STALL


ANSWERS = {"merges": ["aaa bbb"] * 400_000, "long": ["x" * 99_000] * 150}


@pytest.mark.parametrize("words", ANSWERS.values(), ids=ANSWERS.keys())
def test_no_answer_keeps_the_loop_at_work(server, tmp_path, words):
    model = TinyModel("wordy", metadata={"tokenizer.ggml.merges": words})
    add_model(server.services.library, tmp_path, model)
    try:
        with measured(server) as cost:
            shown = server.post("/api/show", {"model": "wordy", "verbose": True})
    finally:
        server.services.library.delete(Name.parse("wordy"))
    assert shown.json["model_info"]["tokenizer.ggml.merges"] == words
    assert cost.turn < TURN
    assert cost.lag < STALL
