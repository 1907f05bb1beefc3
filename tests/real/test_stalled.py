"""A runner that does nothing any more, though it is there: its requests end with the cause, and the next is served."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore

import openai
import psutil
import pytest

from fakes.waiting import until

from .conftest import SHALLOW, Program, serve

ASK = [{"role": "user", "content": "Count to a thousand."}]
LONG = [{"role": "user", "content": "word " * 900}]
ENDLESS = {"model": SHALLOW, "max_tokens": 3000, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module", params=["llama", "cpu"])
def watched(
    request: pytest.FixtureRequest, shallow_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """A server that waits three seconds for a sign of life."""
    settings = {"PUNA_ENGINE": request.param, "PUNA_STALL_TIMEOUT": "3s", "PUNA_NUM_PARALLEL": "2", "PUNA_SPARE": "0"}
    with serve(shallow_store, tmp_path_factory.mktemp("stalled") / "log", **settings) as running:
        yield running


def answered(program: Program) -> None:
    """Loads the model if need be. One that failed thrice rests for a moment, and the answer says how long."""
    resting: list[openai.InternalServerError] = []

    def try_once() -> bool:
        try:
            answer = program.client.chat.completions.create(model=SHALLOW, messages=ASK, max_tokens=2)  # type: ignore[arg-type]
        except openai.InternalServerError as error:
            resting.append(error)
            return False
        return bool(answer.choices[0].message.content)

    until(try_once, 60, "the model to be served again")
    assert {error.status_code for error in resting} <= {503}
    assert all("ended" in error.message and float(error.response.headers["retry-after"]) > 0 for error in resting)


def stopped(program: Program) -> psutil.Process:
    (runner,) = program.runners()
    runner.send_signal(signal.SIGSTOP)
    return runner


def check(error: openai.APIError, runner: psutil.Process) -> None:
    assert error.code == "runner_died"
    assert "no sign of life" in error.message
    assert not runner.is_running() or runner.status() == psutil.STATUS_ZOMBIE


def test_stopped_in_the_middle_of_streams(watched: Program) -> None:
    answered(watched)
    begun = Semaphore(0)

    def listen() -> None:
        for _ in watched.client.chat.completions.create(messages=ASK, stream=True, **ENDLESS):  # type: ignore[call-overload]
            begun.release()

    def read(_: int) -> openai.APIError:
        with pytest.raises(openai.APIError) as broken:
            listen()
        return broken.value

    # One of them waits for a slot.
    with ThreadPoolExecutor(3) as readers:
        errors = readers.map(read, range(3))
        assert begun.acquire(timeout=60)
        runner = stopped(watched)
        for error in errors:
            check(error, runner)
    answered(watched)


@pytest.mark.parametrize("messages", [ASK, LONG], ids=["answer", "prompt"])
def test_stopped_before_a_request(watched: Program, messages: list[dict[str, str]]) -> None:
    answered(watched)
    runner = stopped(watched)
    with pytest.raises(openai.APIError) as broken:
        watched.client.chat.completions.create(messages=messages, **ENDLESS)  # type: ignore[call-overload]
    check(broken.value, runner)
    answered(watched)


def test_stopped_it_keeps_no_other_route_waiting(watched: Program) -> None:
    answered(watched)
    runner = stopped(watched)
    for path in ("/api/ps", "/api/tags", "/v1/models", "/api/version"):
        with urllib.request.urlopen(f"{watched.url}{path}", timeout=10) as answer:
            assert answer.status == 200
    body = json.dumps({"model": SHALLOW, "prompt": "Hi", "options": {"num_predict": 3}}).encode()
    with pytest.raises(urllib.error.HTTPError) as broken:
        urllib.request.urlopen(f"{watched.url}/api/generate", body, timeout=60)
    assert "no sign of life" in json.load(broken.value)["error"]
    assert not runner.is_running() or runner.status() == psutil.STATUS_ZOMBIE
    answered(watched)


def test_an_end_of_the_server_waits_for_no_stopped_runner(watched: Program, tmp_path: Path) -> None:
    with serve(watched.models, tmp_path / "log", PUNA_ENGINE=watched.environment["PUNA_ENGINE"]) as own:
        answered(own)
        runner = stopped(own)
        own.process.terminate()
        assert own.process.wait(30) == 0
        assert not runner.is_running()
