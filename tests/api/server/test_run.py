"""`puna serve` in a process of its own: ready line, signals, an address that is taken."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.waiting import until


@contextmanager
def started(tmp_path: Path, *, code: str = "", **environment: str) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "script.json"
    script.write_text('{"default": {"text": "Hi."}}')
    variables = {"PUNA_MODELS": str(tmp_path / "models"), "PUNA_ENGINE": "scripted", "PUNA_SCRIPT": str(script)}
    process = subprocess.Popen(
        [sys.executable, *(("-c", code) if code else ("-m", "puna")), "serve"],
        env={"HOME": str(tmp_path)} | variables | environment,
        stderr=subprocess.PIPE,
        text=True,
        # As a terminal starts it: a test run in the background may itself ignore the signal, and pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ready_url(process: subprocess.Popen[str]) -> str:
    assert process.stderr
    line = process.stderr.readline()
    assert "listens on http://127.0.0.1:" in line, line
    return line.split("listens on ")[1].split()[0]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_one_line_when_ready_and_an_orderly_end(tmp_path, number, status):
    with started(tmp_path, PUNA_HOST="127.0.0.1:0") as process:
        url = ready_url(process)
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            process.send_signal(number)
            assert process.wait(10) == status
            assert process.stderr
            assert "Traceback" not in process.stderr.read()


STUCK = """
import threading
import puna.server.run as run
from puna.cli.main import main
from puna.lane import in_jobs, in_lane
run.LIMIT_SECONDS = 1.0
in_jobs.begin(threading.Event().wait)  # as one that waits for a disk that does not answer
in_lane.begin(threading.Event().wait)
main()
"""


def test_it_ends_in_time_whatever_its_threads_wait_for(tmp_path):
    with started(tmp_path, code=STUCK, PUNA_HOST="127.0.0.1:0") as process:
        ready_url(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr
        assert "work was still under way" in process.stderr.read()


def test_models_that_the_settings_name_are_loaded_at_the_start(tmp_path):
    with started(tmp_path, PUNA_HOST="127.0.0.1:0", PUNA_PRELOAD="no/such/name/at/all, tiny") as process:
        url = ready_url(process)

        def loaded() -> list[str]:
            with urllib.request.urlopen(f"{url}/api/ps") as answer:
                return [model["name"] for model in json.load(answer)["models"]]

        until(lambda: loaded() == ["tiny:latest"], 20, "the model to be loaded")
        assert process.stderr
        assert "not preloaded" in process.stderr.readline()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PUNA_HOST": "https://127.0.0.1:0"}, "plain HTTP"),
        ({"PUNA_HOST": "192.0.2.1:0"}, "an address of this machine"),
        ({"PUNA_HOST": "127.0.0.1:0", "PUNA_ORIGINS": "example.com"}, "PUNA_ORIGINS"),
        ({"PUNA_HOST": "127.0.0.1:0", "PUNA_SCRIPT": ""}, "PUNA_SCRIPT"),
    ],
)
def test_bad_settings_stop_the_start_in_words(tmp_path, variables, words):
    with started(tmp_path, **variables) as process:
        assert process.stderr
        said = process.stderr.read()
        assert process.wait(10) == 1
    assert words in said
    assert "Traceback" not in said


def test_an_open_server_without_keys_is_warned_about(tmp_path):
    with started(tmp_path, PUNA_HOST="0.0.0.0:0") as process:
        assert process.stderr
        process.stderr.readline()
        assert "PUNA_API_KEYS" in process.stderr.readline()


def test_the_server_process_is_light(tmp_path):
    import psutil

    with started(tmp_path, PUNA_HOST="127.0.0.1:0") as process:
        ready_url(process)
        server = psutil.Process(process.pid)
        used = server.cpu_times()
        assert used.user + used.system < 5
        assert server.memory_info().rss < 120 * 2**20


def test_importing_the_server_loads_no_engine():
    code = "import sys, puna.server.run; print([m for m in sys.modules if m in sys.argv[1:]])"
    heavy = ["xllamacpp", "numpy", "regex", "llguidance", "openai", "jsonschema"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
