"""`puna serve` as a process: in the background and in front, its state, its end, its log."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest

from puna import __version__

SCRIPT = {
    "rules": [{"when": {"contains": "FOREVER"}, "answer": {"text": "on and ", "repeat": True, "delay": 0.02}}],
    "default": {"text": "Hello."},
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class House:
    """A home of its own, and the command in it."""

    def __init__(self, command: Any, port: int) -> None:
        self.command = command
        self.port = port
        self.state = Path(command.environment["XDG_STATE_HOME"]) / "puna"
        self.log = self.state / f"serve-{port}.log"

    def __call__(self, *arguments: str, **options: Any) -> Any:
        return self.command(*arguments, **options)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in (self.state / "servers").glob("*.json")]

    def chat(self, path: str, text: str, *, stream: bool, begun: threading.Event | None = None) -> bytes:
        """The whole body of the answer, until the connection ends or the answer does."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "stream": stream}
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        with connection.getresponse() as response:
            data = response.read1()
            if begun is not None:
                begun.set()
            data += response.read()
        connection.close()
        return data


@pytest.fixture
def house(command: Callable[..., Any], store: Path, tmp_path: Path) -> Iterator[House]:
    script = tmp_path / "script.json"
    script.write_text(json.dumps(SCRIPT))
    port = free_port()
    made = command(f"127.0.0.1:{port}", PUNA_MODELS=str(store), PUNA_ENGINE="scripted", PUNA_SCRIPT=str(script))
    house = House(made, port)
    yield house
    for record in house.records():
        psutil.Process(record["pid"]).kill()


def test_background_status_stop(house: House) -> None:
    started = house("serve", "--background")
    assert started.status == 0, started.err
    told = re.fullmatch(
        rf"Puna serves at http://127.0.0.1:{house.port} \(process (\d+), log (\S+)\); "
        rf"'puna serve --stop --port {house.port}' ends it\n",
        started.out,
    )
    assert told
    assert told[2] == str(house.log)
    pid = int(told[1])
    assert os.getsid(pid) == pid, "it must not die with the terminal"
    state = house("serve", "--status")
    assert state.status == 0
    assert state.out.splitlines()[0] == f"Puna {__version__} runs at http://127.0.0.1:{house.port}"
    for line in (rf"process  {pid}, since \d{{4}}-.*", rf"log      {house.log}", "loaded   no model"):
        assert re.search(f"^{line}$", state.out, re.MULTILINE), state.out
    again = house("serve", "--background")
    assert again.status == 1
    assert f"(process {pid}, since " in again.err
    assert f"(process {pid}, since " in house("serve").err
    stopped = house("serve", "--stop")
    assert (stopped.status, stopped.out) == (
        0,
        f"stopped the server at http://127.0.0.1:{house.port} (process {pid})\n",
    )
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert house.records() == []
    gone = house("serve", "--stop")
    assert (gone.status, gone.err) == (1, f"Error: no server runs at http://127.0.0.1:{house.port}\n")
    assert house("serve", "--status").status == 1


def test_nothing_is_ended_that_it_did_not_start(house: House, tmp_path: Path) -> None:
    """A record whose process is gone, or whose number another process has, is no reason to end anything."""
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        servers = house.state / "servers"
        servers.mkdir(parents=True)
        row = {"url": f"http://127.0.0.1:{house.port}", "host": "127.0.0.1", "port": house.port, "version": "1",
               "models": "/x", "log": ""}  # fmt: skip
        (servers / "1.json").write_text(json.dumps({**row, "pid": other.pid, "started": 1000.0}))
        (servers / "2.json").write_text(json.dumps({**row, "pid": 2**22 + 1, "started": 1000.0}))
        (servers / "3.json").write_text("no JSON")
        assert house("serve", "--stop").status == 1
        assert other.poll() is None
        assert house.records() == []
        assert house("serve", "--background").status == 0
        assert house("serve", "--stop").status == 0
        assert other.poll() is None
    finally:
        other.communicate(b"\n")


def test_a_server_of_somebody_else_is_left_alone(command: Callable[..., Any], server: Any) -> None:
    ended = command(server.url)("serve", "--stop")
    assert ended.status == 1
    assert "was not started by this user" in ended.err
    assert server.get("/health").status == 200
    state = command(server.url)("serve", "--status")
    assert "process  not known" in state.out


def test_the_state_of_a_server_with_keys(command: Callable[..., Any], serving: Any) -> None:
    with serving(api_keys=("right",)) as server:
        ended = command(server.url)("serve", "--status")
    assert ended.status == 0
    assert "asks for a key" in ended.out


@pytest.mark.parametrize("flags", [["--stop", "--status"], ["-b", "--log", "x"]])
def test_one_thing_at_a_time(house: House, flags: list[str]) -> None:
    assert house("serve", *flags).status == 2


# ----------------------------------------------------------------------------------------------------------- its end


def heeding() -> None:
    """As a terminal starts it: a test run in the background may itself ignore a signal, and pass that on."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def foreground(house: House) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        process = house.command.start(
            "serve",
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=heeding,
        )
        started.append(process)
        assert process.stderr
        assert b"listens on" in process.stderr.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line_with(process: subprocess.Popen[bytes], words: bytes) -> bytes:
    assert process.stderr
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"{words!r} was not said")


CASES = [("/v1/chat/completions", True), ("/v1/chat/completions", False), ("/api/chat", True), ("/api/chat", False)]


def test_a_second_ctrl_c_stops_now_and_answers_end_with_an_error(
    house: House, foreground: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process = foreground()
    bodies: dict[tuple[str, bool], bytes] = {}

    begun = {case: threading.Event() for case in CASES}

    def ask(path: str, stream: bool) -> None:
        bodies[path, stream] = house.chat(path, "FOREVER", stream=stream, begun=begun[path, stream])

    threads = [threading.Thread(target=ask, args=case) for case in CASES]
    for thread in threads:
        thread.start()
    assert all(event.wait(20) for (_, stream), event in begun.items() if stream)
    until_busy(house, len(CASES))
    process.send_signal(signal.SIGINT)
    assert b"waiting for 4 requests (at most 5 s; a second Ctrl-C stops now)" in line_with(process, b"stopping")
    process.send_signal(signal.SIGINT)
    assert process.stderr
    rest = process.stderr.read().decode()
    assert process.wait(10) == 130
    for thread in threads:
        thread.join(10)
    assert "Traceback" not in rest
    assert "CancelledError" not in rest
    assert "ERROR" not in rest
    for (path, stream), body in bodies.items():
        text = body.decode().strip()
        if path.startswith("/v1"):
            last = json.loads(text.split("data: ")[-1])["error"]
            assert (last["code"], last["type"]) == ("server_stopping", "server_error")
        else:
            assert "stopping" in json.loads(text.splitlines()[-1])["error"]
        assert ('"on"' in text) == stream


def test_the_end_of_the_terminal_is_an_orderly_end(
    house: House, foreground: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process = foreground()
    process.send_signal(signal.SIGHUP)
    assert process.wait(20) == 0
    assert house.records() == []


def test_sigterm_gives_answers_time(house: House, foreground: Callable[[], subprocess.Popen[bytes]]) -> None:
    process = foreground()
    bodies: list[bytes] = []
    thread = threading.Thread(target=lambda: bodies.append(house.chat("/api/chat", "FOREVER", stream=True)))
    thread.start()
    until_busy(house, 1)
    process.send_signal(signal.SIGTERM)
    assert b"waiting for 1 request (" in line_with(process, b"stopping")
    # It goes on for ever, and is ended when its time is over.
    assert process.wait(20) == 0
    thread.join(10)
    assert "stopping" in json.loads(bodies[0].splitlines()[-1])["error"]
    assert bodies[0].count(b'" and"') > 20, "it went on meanwhile"
    assert house.records() == []


def until_busy(house: House, count: int) -> None:
    """Wait until so many requests are at work."""
    while True:
        connection = HTTPConnection("127.0.0.1", house.port, timeout=30)
        connection.request("GET", "/api/ps")
        with connection.getresponse() as response:
            models = json.load(response)["models"]
        connection.close()
        if sum(model["busy"] for model in models) >= count:
            return


# ----------------------------------------------------------------------------------------------------------- its log


def test_the_log_has_one_line_a_request_and_none_of_its_words(house: House) -> None:
    assert house("serve", "--background").status == 0
    secret = "sk-secret-key"
    connection = HTTPConnection("127.0.0.1", house.port, timeout=30)
    headers = {"content-type": "application/json", "authorization": f"Bearer {secret}"}
    body = {"model": "tiny", "messages": [{"role": "user", "content": "my private words"}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    with connection.getresponse() as response:
        request_id = response.headers["x-request-id"]
        usage = json.load(response)["usage"]
    connection.request("GET", "/no%0A2026-01-01%20[info]%20forged%1b[31m")
    connection.getresponse().read()
    connection.close()
    assert house("serve", "--stop").status == 0
    text = house.log.read_text()
    assert house.log.stat().st_mode & 0o077 == 0
    assert len(request_id) <= 16
    (line,) = [line for line in text.splitlines() if request_id in line and " request " in line]
    for word in ("method=POST", "path=/v1/chat/completions", "status=200", "client=127.0.0.1", "model=tiny",
                 f"tokens_in={usage['prompt_tokens']}", f"tokens_out={usage['completion_tokens']}",
                 "out_per_s="):  # fmt: skip
        assert word in line
    assert secret not in text
    assert "private" not in text
    assert "Hello" not in text
    assert not any(line.startswith("2026-01-01") for line in text.splitlines())
    assert "\x1b" not in text
    assert house("serve", "--background").status == 0
    assert house.log.read_text().startswith(text), "an earlier log is kept"
    assert house("serve", "--stop").status == 0


@pytest.mark.parametrize("home", ["/dev/null/nowhere", None])
def test_without_a_writable_home_the_temporary_files_serve(house: House, tmp_path: Path, home: str | None) -> None:
    """What would lie in the state directory lies there: the log, and the record by which it is stopped."""
    environment = house.command.environment
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME", "HOME"):
        environment.pop(name, None)
        if home is not None:
            environment[name] = home
    environment["TMPDIR"] = str(tmp_path)
    if home is None:
        # Without HOME the home is looked up by the user's number, which may have none either.
        environment["PYTHONPATH"] = str(nobody(tmp_path))
    started = house("serve", "--background")
    assert started.status == 0, started.err
    log = tmp_path / f"puna-{os.getuid()}" / f"serve-{house.port}.log"
    assert str(log) in started.out
    assert "listens on" in log.read_text()
    assert "tiny:latest" in house("list").out
    assert house("serve", "--stop").status == 0


def nobody(directory: Path) -> Path:
    """A directory for PYTHONPATH by which this user's number is in no list of users."""
    path = directory / "site"
    path.mkdir()
    (path / "sitecustomize.py").write_text(
        "import pwd\n\ndef missing(uid):\n    raise KeyError(uid)\n\npwd.getpwuid = missing\n"
    )
    return path


def test_no_home_and_no_directory_for_models_is_said(command: Callable[..., Any], tmp_path: Path) -> None:
    puna = command("127.0.0.1:9", PYTHONPATH=str(nobody(tmp_path)))
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME", "HOME"):
        puna.environment.pop(name, None)
    for arguments in (["list"], ["serve"], ["run", "tiny", "hi"]):
        ended = puna(*arguments)
        assert ended.status == 1
        assert "PUNA_MODELS" in ended.err
        assert "no home directory" in ended.err
        assert "Traceback" not in ended.err
    assert not (tmp_path / "~").exists()
