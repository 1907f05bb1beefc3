"""Outputs that are full or closed, inputs that are no text, and Ctrl-C in the middle of work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fakes.gguf_files import write_tiny_llama
from puna.cli.piped import LIMIT

PUNA = str(Path(sys.executable).with_name("puna"))

EVERY_PRINTING_COMMAND = [
    ["list"],
    ["ps"],
    ["show", "tiny"],
    ["show", "--modelfile", "tiny"],
    ["run", "tiny", "hi"],
    ["run", "embedder", "hi"],
    ["version"],
    ["help"],
    ["--help"],
    ["completion", "bash"],
]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", EVERY_PRINTING_COMMAND, ids=" ".join)
def test_a_full_output_is_one_line_of_error(puna: Any, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        process = puna.start(*arguments, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=60)
    told = "Error: the output could not be written (no space left on device): make room, or write elsewhere\n"
    assert (process.returncode, err.decode()) == (1, told)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "arguments", [["list"], ["run", "tiny", "hi"], ["show", "nobody"], ["list", "--what"]], ids=" ".join
)
def test_errors_that_cannot_be_shown_either_are_a_status(puna: Any, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        process = puna.start(*arguments, stdin=subprocess.DEVNULL, stdout=full, stderr=full)
        process.communicate(timeout=60)
    assert process.returncode == (2 if "--what" in arguments else 1)


@pytest.mark.parametrize("arguments", EVERY_PRINTING_COMMAND, ids=" ".join)
def test_a_reader_that_has_left_is_no_fault(puna: Any, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = puna.start(*arguments, stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, b"")


def test_an_output_that_is_closed_is_no_fault(puna: Any) -> None:
    ended = subprocess.run(
        ["sh", "-c", '"$0" run tiny hi >&-', PUNA],
        env=puna.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


def sent(puna: Any, data: bytes, *arguments: str) -> tuple[int, str, str]:
    process = puna.start(*arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(data, timeout=60)
    return process.returncode, out.decode(), err.decode()


def test_what_is_no_text_is_told_and_sent_as_well_as_it_can_be(puna: Any) -> None:
    status, out, err = sent(puna, b"PROMPT a\xffb", "run", "tiny")
    assert status == 0
    assert "PROMPT a\ufffdb" in out
    assert err == "Warning: what is piped in is not UTF-8 (from byte 8): what could not be read is sent as \ufffd\n"
    ended = puna("run", "tiny", os.fsdecode(b"PROMPT a\xffb"))
    assert "PROMPT a\ufffdb" in ended.out
    assert ended.err.startswith("Warning: the prompt is not UTF-8 (from byte 8)")
    marked = sent(puna, b"\xef\xbb\xbfPROMPT", "run", "tiny")
    assert "\nPROMPT\n" in marked[1], "a byte order mark is none of the text"
    assert marked[2] == ""


def test_a_long_text_is_taken_whole_or_refused(puna: Any) -> None:
    status, out, err = sent(puna, b"PROMPT " + b"word " * 100, "run", "tiny")
    assert (status, out.count("word")) == (0, 100)
    status, out, err = sent(puna, b"x" * (LIMIT + 1), "run", "tiny")
    assert (status, out) == (1, "")
    assert err == "Error: what is piped in is longer than 64 MiB: send less of it\n"
    status, out, err = sent(puna, b"x " * 4_000_000, "run", "tiny")
    assert status == 1
    assert len(err.splitlines()) == 1
    assert err.startswith("Error: ")


def test_an_input_that_cannot_be_read(puna: Any) -> None:
    with (puna.directory / "written").open("w") as not_to_read:
        process = puna.start("run", "tiny", stdin=not_to_read, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert re.fullmatch(rb"Error: what is piped in cannot be read: .*\n", err)


# --------------------------------------------------------------------------------------------------------------- Ctrl-C


@pytest.fixture
def endless() -> Iterator[tuple[str, threading.Event]]:
    """A server whose pulls and the like begin, and never end; and whether one has begun."""
    began = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(404 if self.path == "/api/show" else 200)
            self.send_header("x-puna-version", "1.0")
            self.end_headers()
            if self.path != "/api/show":
                self.wfile.write(b'{"status":"pulling manifest"}\n')
                self.wfile.flush()
                began.set()
                self.rfile.read(1)  # until the command goes

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("x-puna-version", "1.0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", began
    server.shutdown()
    server.server_close()


FETCHING = "Stopped before m was fetched: nothing half-done is listed, 'puna pull m' begins again.\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["pull", "m"], FETCHING),
        (["push", "m"], "Stopped before all of m was sent: 'puna push m' sends the rest.\n"),
        (["create", "m"], "Stopped before m was made: nothing was changed.\n"),
        (
            ["run", "m", "hi"],
            "Stopped before m was fetched: nothing half-done is listed, 'puna pull m' begins again.\n",
        ),
        (["run", "./x.gguf", "hi"], "Stopped before local/x was made: nothing was changed.\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_ctrl_c_says_what_became_of_the_work(
    command: Callable[..., Any], endless: tuple[str, threading.Event], arguments: list[str], told: str
) -> None:
    url, began = endless
    puna = command(url)
    write_tiny_llama(puna.directory / "x.gguf")
    (puna.directory / "Modelfile").write_text("FROM ./x.gguf\n")
    process = puna.start(
        *arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert began.wait(30)
    assert process.stderr is not None
    seen = process.stderr.readline()
    while b"pulling manifest" not in seen:
        seen += process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err.decode()) == (130, told)
