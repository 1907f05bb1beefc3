"""Start and stop what is measured: `puna serve`, and the bare engine with the very child process that Puna starts."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from load import Target
from puna.engine.llama.options import parameters, wheel
from puna.engine.runner import LoadOptions, ModelFiles

THREADS = psutil.cpu_count(logical=False) or os.cpu_count() or 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(url: str, process: subprocess.Popen[bytes], seconds: float = 120) -> float:
    """Seconds until `url` answers 200. RuntimeError if the process ends first."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url) as answer:
            if answer.status == 200:
                return time.perf_counter() - began
        time.sleep(0.005)
    raise RuntimeError(f"{url} did not answer in {seconds} s")


def memory(pids: tuple[int, ...]) -> tuple[int, int]:
    """(resident, anonymous) bytes of these processes and their children."""
    resident = anonymous = 0
    for pid in pids:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            full = process.memory_full_info()
            resident += full.rss
            rollup = Path(f"/proc/{process.pid}/smaps_rollup")
            if rollup.exists():
                lines = dict(line.split(":", 1) for line in rollup.read_text().splitlines()[1:] if ":" in line)
                anonymous += int(lines["Anonymous"].split()[0]) * 1024
    return resident, anonymous


@contextlib.contextmanager
def stopped_at_end(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def puna(
    name: str, model: str, models: Path, engine: str, parallel: int, context: int
) -> Iterator[tuple[Target, float]]:
    """`puna serve` over the store `models`, and the seconds from its start to ready."""
    port = free_port()
    environment = {
        **os.environ,
        "PUNA_HOST": f"127.0.0.1:{port}",
        "PUNA_MODELS": str(models),
        "PUNA_ENGINE": engine,
        "PUNA_NUM_PARALLEL": str(parallel),
        "PUNA_CONTEXT_LENGTH": str(context),
        "PUNA_KEEP_ALIVE": "-1",
    }
    log = (models / f"{name}.log").open("wb")
    with (
        log,
        stopped_at_end(
            subprocess.Popen([sys.executable, "-m", "puna", "serve"], env=environment, stdout=log, stderr=log)
        ) as process,
    ):
        ready = wait_until_up(f"http://127.0.0.1:{port}/", process)
        yield (
            Target(name, model, f"http://127.0.0.1:{port}", pids=(process.pid,), extra=(("ignore_eos", True),)),
            ready,
        )


@contextlib.contextmanager
def ollama(binary: Path, models: Path, model: str, parallel: int, context: int) -> Iterator[Target]:
    """A real Ollama over the same store."""
    port = free_port()
    environment = {
        **os.environ,
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(models),
        "OLLAMA_NUM_PARALLEL": str(parallel),
        "OLLAMA_CONTEXT_LENGTH": str(context),
        "OLLAMA_NOPRUNE": "1",
    }
    with stopped_at_end(
        subprocess.Popen([str(binary), "serve"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ) as process:
        wait_until_up(f"http://127.0.0.1:{port}/", process)
        yield Target("ollama", model, f"http://127.0.0.1:{port}", pids=(process.pid,))


@contextlib.contextmanager
def bare(name: str, file: Path, slots: int, context: int, *, exact: bool, private: bool = False) -> Iterator[Target]:
    """llama.cpp's own server over its own HTTP API, in the very child process and with the options that Puna uses.

    It listens where a client would look for it, on a port of this machine; `private`: on a Unix socket, as Puna's does.
    """
    with tempfile.TemporaryDirectory(prefix="puna-bare-") as folder:
        path = Path(folder) / "s.sock"
        files = ModelFiles(weights=file.resolve(), digest="", architecture="", quantization="")
        options = wheel(
            parameters(files, LoadOptions(num_ctx=context, slots=slots), cores=THREADS, socket=path, exact=exact)
        )
        port = free_port()
        if not private:
            options.update(hostnames=["127.0.0.1"], port=port)
        log = (Path(folder) / "log").open("wb")
        command = [sys.executable, "-m", "puna.engine.llama.child", json.dumps(options)]
        environment = {**os.environ, "PUNA_PARENT": str(os.getpid())}
        with (
            log,
            stopped_at_end(
                subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log)
            ) as process,
        ):
            target = Target(
                name,
                "any",
                f"http://127.0.0.1:{port}",
                socket=str(path) if private else None,
                pids=(process.pid,),
                extra=(("ignore_eos", True),),
            )
            wait_until_healthy(target, process)
            yield target


def wait_until_healthy(target: Target, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    deadline = time.perf_counter() + seconds
    address = urlsplit(target.url)
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the bare engine ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX if target.socket else socket.AF_INET) as raw:
            raw.connect(target.socket or (address.hostname, address.port))
            connection = http.client.HTTPConnection("engine")
            connection.sock = raw
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.02)
    raise RuntimeError("the bare engine did not become ready")
