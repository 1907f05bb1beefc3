"""The installed command as a process of its own, against a real server with the scripted engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PUNA = str(Path(sys.executable).with_name("puna"))


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Command:
    """Runs `puna` with an environment of its own: nothing of the user's is read or written."""

    environment: dict[str, str]
    directory: Path

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> Ended:
        """`stdin` None: there is none."""
        ended = subprocess.run(
            [PUNA, *arguments],
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            timeout=timeout,
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin.encode()}),
        )
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([PUNA, *arguments], env=self.environment, cwd=self.directory, **options)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Command]:
    """`command(host, **environment)`."""

    def make(host: str, **more: str) -> Command:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PUNA_", "OLLAMA_"))}
        state = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_DATA_HOME": str(tmp_path / "data")}
        return Command({**kept, **state, "PUNA_HOST": host, "COLUMNS": "100", **more}, tmp_path)

    return make


@pytest.fixture
def puna(command: Callable[..., Command], server: Any) -> Command:
    """The command on the shared server."""
    return command(server.url)
