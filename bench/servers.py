"""Start and stop what is measured: `puna serve`, llama.cpp's server built for this processor, and the bare engine.

The bare engine is llama.cpp as Puna has it from its wheel, in the very child process that Puna starts.
"""

from __future__ import annotations

import asyncio
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from load import FEW, Target, many
from machine import CORES
from puna.engine.llama.options import parameters, wheel
from puna.engine.runner import LoadOptions, ModelFiles

OURS = ("PUNA_", "OLLAMA_")
"""How variables begin that would change what a server does."""

IGNORE_EOS = (("ignore_eos", True),)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    `cold`: measures the seconds from a model that is not loaded to the first token of a prompt, after so many seconds
    in which nobody asked for anything. `ready`: seconds from its start until it answered.
    """

    target: Target
    ready: float
    cold: Callable[[str, float], float] | None = None

    @property
    def name(self) -> str:
        return self.target.name


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


def memory(pids: tuple[int, ...], *, children: bool = True) -> tuple[int, int]:
    """(resident, anonymous) bytes of these processes, and of their children."""
    resident = anonymous = 0
    for pid in pids:
        parent = psutil.Process(pid)
        for process in [parent, *(parent.children(recursive=True) if children else ())]:
            full = process.memory_full_info()
            resident += full.rss
            rollup = Path(f"/proc/{process.pid}/smaps_rollup")
            if rollup.exists():
                lines = dict(line.split(":", 1) for line in rollup.read_text().splitlines()[1:] if ":" in line)
                anonymous += int(lines["Anonymous"].split()[0]) * 1024
    return resident, anonymous


RESERVED = 100 << 20
"""Bytes of a mapping, at least, to be taken for a cache that is filled as it is needed."""


def cache(pids: tuple[int, ...]) -> int:
    """Anonymous bytes of these processes' children in large mappings that are less than half filled.

    That is the cpu engine's cache, whose memory the system gives when it is written, on huge pages: a layer takes two
    megabytes with its first token. All else that these processes take they fill.
    """
    found = 0
    for pid in pids:
        for process in psutil.Process(pid).children(recursive=True):
            size = 0
            for line in Path(f"/proc/{process.pid}/smaps").read_text().splitlines():
                match line.split():
                    case ["Size:", amount, "kB"]:
                        size = int(amount) * 1024
                    case ["Anonymous:", amount, "kB"] if RESERVED <= size > 2 * int(amount) * 1024:
                        found += int(amount) * 1024
    return found


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


def clean() -> dict[str, str]:
    """The environment without anybody's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def first_token(target: Target, prompt: str) -> float:
    """Seconds until the first text of an answer."""
    return asyncio.run(many(target, [prompt], FEW))[0].time_to_first


@contextlib.contextmanager
def puna(name: str, model: str, models: Path, settings: dict[str, str]) -> Iterator[Server]:
    """`puna serve` over the store `models`, every setting but these at its default."""
    port = free_port()
    environment = {
        **clean(),
        "PUNA_HOST": f"127.0.0.1:{port}",
        "PUNA_MODELS": str(models),
        "PUNA_CACHE_DISK": "0",
        **settings,
    }
    command = [sys.executable, "-m", "puna", "serve"]
    log = (models / f"{name}.log").open("wb")
    with log, stopped_at_end(subprocess.Popen(command, env=environment, stdout=log, stderr=log)) as process:
        url = f"http://127.0.0.1:{port}"
        ready = wait_until_up(f"{url}/", process)
        target = Target(name, model, url, pids=(process.pid,), extra=IGNORE_EOS)

        def cold(prompt: str, rest: float) -> float:
            unload(target)
            time.sleep(rest)
            return first_token(target, prompt)

        yield Server(target, ready, cold)


def unload(target: Target) -> None:
    body = json.dumps({"model": target.model, "keep_alive": 0}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{target.url}/api/generate", body)).read()


@contextlib.contextmanager
def native(name: str, program: Path, file: Path, slots: int, context: int) -> Iterator[Server]:
    """llama.cpp's own server, with so many slots of such a context; all else as its authors set it."""

    def cold(prompt: str, _: float) -> float:
        """From the start of a server of its own, which does nothing ahead."""
        began = time.perf_counter()
        with llama_server(program, file, slots, context) as (url, pid):
            ready = time.perf_counter() - began
            return ready + first_token(Target(name, "any", url, pids=(pid,), extra=IGNORE_EOS), prompt)

    began = time.perf_counter()
    with llama_server(program, file, slots, context) as (url, pid):
        yield Server(Target(name, "any", url, pids=(pid,), extra=IGNORE_EOS), time.perf_counter() - began, cold)


@contextlib.contextmanager
def llama_server(program: Path, file: Path, slots: int, context: int) -> Iterator[tuple[str, int]]:
    """Its base URL and its process, once it is ready."""
    port = free_port()
    sizes = ["-c", slots * context, "-np", slots, "-t", CORES, "-tb", CORES]
    command = [program, "-m", file, "--host", "127.0.0.1", "--port", port, *sizes]
    with (
        tempfile.TemporaryFile() as log,
        stopped_at_end(
            subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, env=clean())
        ) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        wait_until_up(f"{url}/health", process)
        yield url, process.pid


@contextlib.contextmanager
def ollama(binary: Path, models: Path, model: str, parallel: int, context: int) -> Iterator[Server]:
    """A real Ollama over the same store."""
    port = free_port()
    environment = {
        **clean(),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(models),
        "OLLAMA_NUM_PARALLEL": str(parallel),
        "OLLAMA_CONTEXT_LENGTH": str(context),
        "OLLAMA_NOPRUNE": "1",
    }
    with stopped_at_end(
        subprocess.Popen([str(binary), "serve"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ) as process:
        ready = wait_until_up(f"http://127.0.0.1:{port}/", process)
        yield Server(Target("ollama", model, f"http://127.0.0.1:{port}", pids=(process.pid,)), ready)


@contextlib.contextmanager
def bare(name: str, file: Path, slots: int, context: int, *, exact: bool, private: bool = False) -> Iterator[Server]:
    """The wheel's llama.cpp over its own HTTP API, in the very child process and with the options that Puna uses.

    It listens where a client would look for it, on a port of this machine; `private`: on a Unix socket, as Puna's does.
    """
    with tempfile.TemporaryDirectory(prefix="puna-bare-") as folder:
        path = Path(folder) / "s.sock"
        files = ModelFiles(weights=file.resolve(), digest="", architecture="", quantization="")
        options = wheel(
            parameters(files, LoadOptions(num_ctx=context, slots=slots), cores=CORES, socket=path, exact=exact)
        )
        port = free_port()
        if not private:
            options.update(hostnames=["127.0.0.1"], port=port)
        log = (Path(folder) / "log").open("wb")
        command = [sys.executable, "-m", "puna.engine.llama.child", json.dumps(options)]
        environment = {**clean(), "PUNA_PARENT": str(os.getpid())}
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
                extra=IGNORE_EOS,
            )
            began = time.perf_counter()
            wait_until_healthy(target, process)
            yield Server(target, time.perf_counter() - began)


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
