"""A server for a command that finds none: start one, detached, and wait until it answers or is dead."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from puna.cli.connect import client
from puna.cli.progress import waiting
from puna.client import ServerUnreachable
from puna.errors import PunaError
from puna.settings import Settings

COMMAND = (sys.executable, "-m", "puna.cli.main", "serve")

_PATIENCE = 60.0
"""Seconds until a server that neither answers nor dies is given up."""

_ROUND = 0.05
"""Seconds between two looks."""

_TOLD_LINES = 12


class ServerNotStarted(PunaError):
    """The server that was started in the background ended, or did not answer; carries the end of its log."""


@dataclass(frozen=True, slots=True)
class Started:
    process: subprocess.Popen[bytes]
    log: Path


async def ensure_server(settings: Settings, console: Console) -> None:
    """Returns when a server answers. Starts one only where it can be: on this machine, without TLS."""
    async with client(settings) as server:
        try:
            await server.check()
            return
        except ServerUnreachable:
            if not server.local or settings.address.scheme != "http":
                raise
    started = start(COMMAND, log_path())
    console.print(
        f"no server was running: starting one in the background at {settings.address.url} "
        f"(process {started.process.pid}, log {started.log})",
        markup=False,
    )
    with waiting("starting the server", console):
        await until_ready(started, settings)


def start(command: Sequence[str], log: Path) -> Started:
    """A process of its own session, which outlives this one; what it writes goes to `log`, replacing an earlier one."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    return Started(process, log)


async def until_ready(started: Started, settings: Settings, patience: float = _PATIENCE) -> None:
    """Waits for the first answer, and for the process's end, whichever comes first."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience
    async with client(settings) as server:
        while True:
            died = await asyncio.to_thread(_ended, started.process)
            try:
                await server.check()
                return  # even if ours died: then another command's server came first
            except ServerUnreachable as error:
                if died is not None:
                    cause = f"the server ended with status {died}"
                elif loop.time() > give_up:
                    cause = f"the server does not answer after {patience:.0f} seconds"
                else:
                    continue
                raise ServerNotStarted(f"{cause}; the end of {started.log}:\n{_tail(started.log)}") from error


def log_path() -> Path:
    from platformdirs import user_state_path

    return user_state_path("puna", appauthor=False) / "serve.log"


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """Its exit status if it ends within a round."""
    try:
        return process.wait(_ROUND)
    except subprocess.TimeoutExpired:
        return None


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_TOLD_LINES:]
    return "\n".join(f"  {line}" for line in lines) or "  (it is empty)"
