"""`run` without a server: one is started, and stays; or it cannot be, and the cause is told."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from puna.cli.background import StartedServer, until_ready
from puna.settings import Settings, parse_address


@pytest.fixture
def host() -> str:
    """An address of this machine that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def alone(command: Callable[..., Any], host: str, store: Path, tmp_path: Path) -> Any:
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"default": {"text": "Hello from the background."}}))
    return command(host, PUNA_MODELS=str(store), PUNA_ENGINE="scripted", PUNA_SCRIPT=str(script))


@pytest.fixture
def ending() -> Iterator[Callable[[int], None]]:
    """Ends these processes after the test, however it goes."""
    processes: list[psutil.Process] = []
    yield lambda pid: processes.append(psutil.Process(pid))
    for process in processes:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def test_a_server_is_started_and_stays(alone: Any, host: str, ending: Callable[[int], None]) -> None:
    ended = alone("run", "tiny", "hi")
    told = re.search(r"starting one in the background at http://(\S+) \(process (\d+), log (\S+)\)", ended.err)
    assert told, ended.err
    pid = int(told[2])
    ending(pid)
    assert (ended.status, ended.out) == (0, "Hello from the background.\n\n")
    assert told[1] == host
    log = Path(told[3])
    assert log.stat().st_mode & 0o077 == 0
    assert os.getsid(pid) == pid, "it must not die with the terminal"
    again = alone("run", "tiny", "hi")
    assert (again.out, again.err) == ("Hello from the background.\n\n", "")
    assert "listens on" in log.read_text()


def test_a_script_answers_to_every_name_without_a_model(
    command: Callable[..., Any], host: str, tmp_path: Path, ending: Callable[[int], None]
) -> None:
    script = tmp_path / "script.json"
    script.write_text(
        json.dumps(
            {
                "rules": [{"when": {"model": "gpt-*"}, "answer": {"text": "From the script."}}],
                "models": [{"match": "gone*", "missing": True}],
            }
        )
    )
    puna = command(host, PUNA_MODELS=str(tmp_path / "none"), PUNA_ENGINE="scripted", PUNA_SCRIPT=str(script))
    ended = puna("run", "gpt-4o", "hi")
    told = re.search(r"process (\d+)", ended.err)
    assert told, ended.err
    ending(int(told[1]))
    assert (ended.status, ended.out) == (0, "From the script.\n\n")
    assert puna("run", "other", "hi").out == "Hello!\n\n"
    shown = puna("show", "gpt-4o").out
    assert re.search(r"architecture +scripted ", shown)
    assert re.search(r"engine +scripted \(named by PUNA_ENGINE\)", shown)
    assert "  Metadata" in puna("show", "-v", "gpt-4o").out
    assert {line.split()[0] for line in puna("ps").out.splitlines()} == {"NAME", "gpt-4o:latest", "other:latest"}
    assert puna("list").out.splitlines()[1:] == [], "they are in no list"
    assert puna("show", "gone").err == "Error: model 'gone:latest' not found\n"


def test_a_server_that_dies_tells_why(alone: Any) -> None:
    Path(alone.environment["PUNA_SCRIPT"]).write_text("{")
    ended = alone("run", "tiny", "hi")
    assert ended.status == 1
    assert "Error: the server ended with status 1; the end of " in ended.err
    assert "script" in ended.err.split("the end of", 1)[1]


def test_only_run_starts_a_server(alone: Any) -> None:
    ended = alone("ps")
    assert ended.status == 1
    assert "puna serve" in ended.err


def test_nothing_is_started_for_another_machine(command: Callable[..., Any]) -> None:
    ended = command("https://127.0.0.1:9")("run", "tiny", "hi")
    assert ended.status == 1
    assert "starting" not in ended.err


SLOW = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    silent, _ = listener.accept()
    while True:
        asking, _ = listener.accept()
        asking.recv(4096)
        asking.sendall(b"HTTP/1.1 200 OK\\r\\nx-puna-version: 1\\r\\ncontent-length: 0\\r\\n\\r\\n")
"""


def test_a_server_that_is_slow_to_answer_first_is_waited_for(host: str, tmp_path: Path) -> None:
    """It listens, and its first caller hears nothing: that is no stranger."""
    address = parse_address(host)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", SLOW, str(address.port)], stdout=log, stderr=log)
    try:
        started = StartedServer(process, tmp_path / "log")
        asyncio.run(until_ready(started, Settings(address=address, models=tmp_path)))
    finally:
        process.kill()
        process.wait()
