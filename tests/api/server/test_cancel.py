"""A request ends wherever it is when its client goes, its time is over or the server ends.

In line, while its model loads, for a slot, in its prompt, in its answer; streamed or not, in each dialect. Its slot is
free then, and it is counted.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from api.conftest import run_server
from fakes.waiting import until
from puna.cli.models import waiting_lines
from puna.client.client import Client
from puna.client.models import WaitingRequest
from puna.settings import Address, ModelPolicy

SCRIPT = {
    "rules": [
        {"when": {"contains": "FOREVER"}, "answer": {"text": "on and ", "repeat": True, "delay": 0.01}},
        {"when": {"contains": "PREFILL"}, "answer": {"text": "at last", "prompt_delay": 600}},
    ],
    "models": [{"match": "begins*", "load_delay": 600}],
}

OPENAI, OLLAMA, ANTHROPIC = "/v1/chat/completions", "/api/chat", "/v1/messages"
FORMS = [(path, stream) for path in (OPENAI, OLLAMA, ANTHROPIC) for stream in (True, False)]


@pytest.fixture(scope="module")
def tight(store, settings) -> Iterator[Any]:
    """A server with room for one model, and one slot of it."""
    policies = (ModelPolicy("vision", max_ctx=1000),)
    changed = replace(settings, num_parallel=1, max_loaded_models=1, max_queue=3, model_policies=policies)
    with run_server(changed, SCRIPT) as server:
        yield server


@dataclass(frozen=True)
class Stage:
    """Where a request is. `held`: by another that holds the slot of the model `tiny`."""

    name: str
    model: str
    text: str
    held: bool
    reached: Callable[[Any], bool]


def _waiters(server: Any) -> list[tuple[str, str]]:
    async def states() -> list[tuple[str, str]]:
        return [(one.model, one.state) for one in server.services.scheduler.waiters()]

    return asyncio.run_coroutine_threadsafe(states(), server.loop).result(10)


STAGES = [
    Stage("in line", "tools", "Hi", True, lambda server: ("tools:latest", "queued") in _waiters(server)),
    Stage("for a slot", "tiny", "Hi", True, lambda server: ("tiny:latest", "queued") in _waiters(server)),
    Stage("loading", "begins", "Hi", False, lambda server: ("begins:latest", "loading") in _waiters(server)),
    Stage("in its prompt", "tiny", "PREFILL", False, lambda server: server.busy() == 1),
    Stage("in its answer", "tiny", "FOREVER", False, lambda server: server.busy() == 1),
]


@contextmanager
def sent(
    server: Any, path: str, model: str, text: str, *, stream: bool, version: str = "1.1", **headers: str
) -> Iterator[socket.socket]:
    """A request whose answer is not read; leaving closes the connection."""
    asked = {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}], "max_tokens": 4000}
    body = json.dumps(asked).encode()
    told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        head = (
            f"POST {path} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n{told}\r\n"
        )
        connection.sendall(head.encode() + body)
        yield connection


def everything(connection: socket.socket) -> bytes:
    data = b""
    while part := connection.recv(65536):
        data += part
    return data


def uses(server: Any) -> int:
    async def count() -> int:
        scheduler = server.services.scheduler
        return scheduler.waiting + sum(place.users for place in scheduler._places.values())

    return asyncio.run_coroutine_threadsafe(count(), server.loop).result(10)


def counted(server: Any, line: str) -> float:
    lines = server.get("/metrics").body.decode().splitlines()
    return next((float(one.rpartition(" ")[2]) for one in lines if one.startswith(line)), 0.0)


def free(server: Any) -> bool:
    return not uses(server) and not server.busy()


@pytest.mark.parametrize(("path", "stream"), FORMS)
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_whose_client_goes_away_is_ended_and_counted(tight, stage, path, stream):
    route = f'puna_requests_total{{method="POST",route="{path}",status="499"}}'
    with ExitStack() as others, capture_logs() as log:
        if stage.held:
            others.enter_context(sent(tight, OPENAI, "tiny", "FOREVER", stream=True))
            until(lambda: tight.busy() == 1, 20, "the other one to be at work")
        before, errors = counted(tight, route), counted(tight, 'puna_errors_total{code="cancelled"}')
        others_uses = uses(tight)
        with sent(tight, path, stage.model, stage.text, stream=stream):
            until(lambda: stage.reached(tight), 20, stage.name)
        until(lambda: uses(tight) == others_uses, 20, "its end")
        until(lambda: tight.busy() == (1 if stage.held else 0), 20, "its slot to be free")
        until(lambda: counted(tight, route) == before + 1, 20, "it to be counted")
        assert counted(tight, 'puna_errors_total{code="cancelled"}') == errors + 1
        assert [one["path"] for one in log if one["event"] == "request" and one["status"] == 499] == [path]
    until(lambda: free(tight), 20, "nothing to be left")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_so_is_one_of_http_1_0(tight, stage, stream):
    """Which cannot be asked by an interim answer whether it is still there."""
    with ExitStack() as others:
        if stage.held:
            others.enter_context(sent(tight, OPENAI, "tiny", "FOREVER", stream=True))
            until(lambda: tight.busy() == 1, 20, "the other one to be at work")
        others_uses = uses(tight)
        with sent(tight, OPENAI, stage.model, stage.text, stream=stream, version="1.0"):
            until(lambda: stage.reached(tight), 20, stage.name)
        until(lambda: uses(tight) == others_uses, 20, "its end")
        until(lambda: tight.busy() == (1 if stage.held else 0), 20, "its slot to be free")
    until(lambda: free(tight), 20, "nothing to be left")


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_whose_time_is_over_is_told_so(tight, stage):
    """In each dialect, streamed or not: all at once where they wait, one after the other where they have the slot."""
    waits = stage.held or stage.name == "loading"
    with ExitStack() as others:
        if stage.held:
            others.enter_context(sent(tight, OPENAI, "tiny", "FOREVER", stream=True))
            until(lambda: tight.busy() == 1, 20, "the other one to be at work")
        for forms in [FORMS[:3], FORMS[3:]] if waits else [[form] for form in FORMS]:
            with ExitStack() as stack:
                asked = [
                    (*form, stack.enter_context(ask(tight, *form, stage, x_puna_deadline="0.3"))) for form in forms
                ]
                for path, stream, connection in asked:
                    check_over(stage, path, everything(connection), stream=stream)
    until(lambda: free(tight), 20, "nothing to be left")


def ask(server: Any, path: str, stream: bool, stage: Stage, **headers: str) -> Any:
    return sent(server, path, stage.model, stage.text, stream=stream, **headers)


def check_over(stage: Stage, path: str, answer: bytes, *, stream: bool) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    # A stream may have begun, with a token or, on a busy machine, with a comment.
    begun = head.startswith(b"HTTP/1.1 200") and stream
    assert begun or head.startswith(b"HTTP/1.1 504"), head
    assert b"The time that this request may take is over" in body
    if path == ANTHROPIC:
        assert b"timeout_error" in body
    if path == OPENAI:
        assert b'"code":"deadline_exceeded"' in body.replace(b'": ', b'":')


def test_a_deadline_that_is_none_is_refused_and_a_long_one_is_kept_to(tight):
    for text in ("0", "-3s", "soon", "", "1e9", "nan"):
        refused = tight.chat(headers={"x-puna-deadline": text})
        assert (refused.status, refused.error["param"]) == (400, "x-puna-deadline"), text
    for text in ("30", "1m30s", "12.5"):
        assert tight.chat(headers={"x-puna-deadline": text}).status == 200
    assert tight.get("/api/tags", headers={"x-puna-deadline": "30s"}).status == 200


async def waiting_at(port: int) -> tuple[WaitingRequest, ...]:
    async with Client(Address(port=port)) as client:
        _, waiting = await client.at_work()
    return waiting


def test_who_waits_is_listed_with_model_state_and_position(tight):
    assert "queue" not in tight.get("/api/ps").json
    with ExitStack() as stack:
        stack.enter_context(sent(tight, OPENAI, "tiny", "FOREVER", stream=True))
        until(lambda: tight.busy() == 1, 20, "the first to be at work")
        stack.enter_context(sent(tight, OPENAI, "tiny", "Hi", stream=True))
        stack.enter_context(sent(tight, OLLAMA, "tools", "Hi", stream=True))
        until(lambda: len(_waiters(tight)) == 2, 20, "both to wait")
        queue = tight.get("/api/ps").json["queue"]
        assert {(one["model"], one["state"], one["position"]) for one in queue} == {
            ("tools:latest", "queued", 1),
            ("tiny:latest", "queued", 1),
        }
        assert all(one["request"].startswith("req_") and one["waited"] >= 0 for one in queue)
        assert counted(tight, "puna_requests_waiting") == 2
        waiting = asyncio.run(waiting_at(tight.port))
        assert [line.rpartition(":")[0] for line in sorted(waiting_lines(waiting).splitlines())] == [
            "1 request waits for tiny:latest",
            "1 request waits for tools:latest",
        ]
    until(lambda: free(tight), 20, "nothing to be left")


def test_who_finds_the_queue_full_is_told_when_to_come_back(tight):
    with ExitStack() as stack:
        stack.enter_context(sent(tight, OPENAI, "tiny", "FOREVER", stream=True))
        until(lambda: tight.busy() == 1, 20, "the first to be at work")
        for model in ("tiny", "tiny", "tools"):
            stack.enter_context(sent(tight, OPENAI, model, "Hi", stream=True))
        until(lambda: len(_waiters(tight)) == 3, 20, "all to wait")
        for path, stream in FORMS:
            for model in ("tiny", "thinker"):
                asked = {"model": model, "stream": stream, "max_tokens": 9}
                answer = tight.post(path, {**asked, "messages": [{"role": "user", "content": "Hi"}]})
                assert answer.status == (529 if path == ANTHROPIC else 503)
                assert 1 <= int(answer.headers["retry-after"]) <= 60
                assert b"PUNA_MAX_QUEUE" in answer.body
    until(lambda: free(tight), 20, "nothing to be left")


def test_a_context_over_what_the_models_policy_allows_is_cut_and_reported(tight):
    answer = tight.chat(model="vision", num_ctx=2000)
    assert (answer.status, answer.headers["x-puna-ignored"]) == (200, "num_ctx")
    assert "x-puna-ignored" not in tight.chat(model="vision", num_ctx=900).headers
    shown = {one["id"]: one["context_length"] for one in tight.get("/v1/models").json["data"]}
    assert (shown["vision:latest"], shown["tiny:latest"]) == (1000, 4096)


def test_who_stays_and_takes_nothing_keeps_no_slot(serving):
    script = {"default": {"tokens": ["word " * 50_000], "repeat": True}}
    gone = f'puna_requests_total{{method="POST",route="{OPENAI}",status="499"}}'
    data = json.dumps({"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}).encode()
    head = f"POST {OPENAI} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    with serving(script, num_parallel=1, write_timeout=0.2) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(head.encode() + data)
        until(lambda: counted(server, gone), 30, "its end")
        until(lambda: free(server), 20, "nothing to be left")


def test_at_the_servers_end_each_one_is_told(serving):
    """Whatever it waits for: an event on a stream that has begun, a 503 where nothing was sent."""
    with serving(SCRIPT, num_parallel=1, max_loaded_models=1) as server, ExitStack() as stack:
        stack.enter_context(sent(server, OPENAI, "tiny", "FOREVER", stream=True))
        until(lambda: server.busy() == 1, 20, "the first to be at work")
        asked = [
            (path, stream, stack.enter_context(sent(server, path, model, "Hi", stream=stream)))
            for path, stream in FORMS
            for model in ("tiny", "tools")
        ]
        until(lambda: len(_waiters(server)) == len(asked), 20, "all to wait")
        server.loop.call_soon_threadsafe(server.services.ending.end_all)
        for path, stream, connection in asked:
            head, _, body = everything(connection).partition(b"\r\n\r\n")
            # A stream begins with a comment after a while; on a busy machine that may be before the end.
            begun = stream and head.startswith(b"HTTP/1.1 200")
            assert begun or head.startswith(b"HTTP/1.1 529" if path == ANTHROPIC else b"HTTP/1.1 503"), (path, head)
            assert b"The server is stopping" in body
        until(lambda: free(server), 20, "nothing to be left")
