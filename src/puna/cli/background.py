"""A server in the background: start one, detached, and wait until it answers or is dead; tell its state; stop it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil
from rich.console import Console

from puna import places
from puna.cli import servers
from puna.cli.connect import client
from puna.cli.progress import error_console, waiting
from puna.client.errors import KeyRefused, NotPuna, ServerUnreachable
from puna.errors import PunaError
from puna.human import human_past
from puna.settings import DEFAULT_PORT, Address, Settings

# -P: what lies in the user's working directory is none of our modules.
COMMAND = (sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), "-m", "puna", "serve")

_PATIENCE = 60.0
"""Seconds until a server that neither answers nor dies is given up."""

_ROUND = 0.05
"""Seconds between two looks."""

_STRANGE = 10.0
"""Seconds for which something that does not answer, once our own server is dead, may be another command's."""

_STOP_PATIENCE = 30.0
"""Seconds that a server may take to end once it was told: its requests have some, then its models are closed."""

_TOLD_LINES = 12


class ServerNotStarted(PunaError):
    """The server that was started in the background ended, or did not answer; carries the end of its log."""


class ServerNotStopped(PunaError):
    """There is none to stop, or it is none of ours."""


@dataclass(frozen=True, slots=True)
class StartedServer:
    """A server that this command has started. `log`: None when there is no place to write one."""

    process: subprocess.Popen[bytes]
    log: Path | None

    @property
    def told(self) -> str:
        return f"process {self.process.pid}, {f'log {self.log}' if self.log else 'without a log: no place for one'}"


async def ensure_server(settings: Settings, console: Console) -> None:
    """Returns when a server answers. Starts one only where it can be: on this machine, without TLS."""
    async with client(settings) as server:
        try:
            await server.identify()
            return
        except ServerUnreachable:
            if not server.local or settings.address.scheme != "http":
                raise
    started = start(COMMAND, log_path(settings.address))
    console.print(
        f"no server was running: starting one in the background at {settings.address.url} ({started.told})",
        markup=False,
    )
    with waiting("starting the server", console):
        await until_ready(started, settings)


async def start_server(settings: Settings) -> None:
    """Starts one, or says who is there already (ServerNotStarted, NotPuna)."""
    async with client(settings) as server:
        try:
            version = await server.identify()
        except ServerUnreachable:
            pass
        else:
            raise ServerNotStarted(already_there(settings.address, version))
    console = error_console()
    started = start(COMMAND, log_path(settings.address))
    with waiting("starting the server", console):
        await until_ready(started, settings)
    print(f"Puna serves at {settings.address.url} ({started.told}); '{_stop_command(settings.address)}' ends it")


def already_there(address: Address, version: str) -> str:
    """Who has the address, and what to do. For a Puna that answers there."""
    known = servers.at(address)
    who = f" (process {known.pid}, since {_local(known.since)})" if known else ""
    stop = f" stop it with '{_stop_command(address)}'," if known else " stop it where it was started,"
    return (
        f"a Puna server, version {version}, runs at {address.url} already{who}: use it,{stop} "
        "or give this one another address with --port or PUNA_HOST"
    )


async def tell_state(settings: Settings) -> None:
    """ServerUnreachable when none runs, NotPuna when something else does."""
    async with client(settings) as server:
        version = await server.identify()
        known = servers.at(settings.address)
        lines = [f"Puna {version} runs at {settings.address.url}"]
        if known is None:
            lines.append("process  not known: it was started by another user or on another machine")
        else:
            age = human_past(known.since, datetime.now(timezone.utc))
            lines += [
                f"process  {known.pid}, since {_local(known.since)} ({age})",
                f"models   {known.models}",
                f"log      {known.log or 'on its terminal (stderr)'}",
            ]
        print("\n".join(lines))
        try:
            models = await server.running()
        except KeyRefused as error:
            print(f"loaded   not told: {error}")
            return
        loaded = [f"{model.name} ({model.engine})" if model.engine else model.name for model in models]
        print(f"loaded   {', '.join(loaded) or 'no model'}")


async def stop_server(settings: Settings) -> None:
    """Ends the server of this user that has the address; never a process that is not known to be one."""
    known = servers.at(settings.address)
    if known is None:
        await _explain_none(settings)
        return
    console = error_console()
    process = psutil.Process(known.pid)
    if not known.alive:  # it went in this moment
        print(f"the server at {known.url} has ended")
        return
    process.send_signal(signal.SIGTERM)
    with waiting("waiting for its requests to end", console):
        try:
            await asyncio.to_thread(process.wait, _STOP_PATIENCE)
        except psutil.TimeoutExpired as error:
            raise ServerNotStopped(f"process {known.pid} has not ended in {_STOP_PATIENCE:.0f} s") from error
    print(f"stopped the server at {known.url} (process {known.pid})")


async def _explain_none(settings: Settings) -> None:
    url = settings.address.url
    async with client(settings, warn=False) as server:
        try:
            await server.identify()
        except ServerUnreachable as error:
            raise ServerNotStopped(f"no server runs at {url}") from error
    raise ServerNotStopped(
        f"the Puna server at {url} was not started by this user on this machine, or left no record: "
        "stop it where it was started"
    )


def start(command: Sequence[str], log: Path | None) -> StartedServer:
    """A process of its own session, which outlives this one; what it writes is added to `log`."""
    if log is not None:
        command = (*command, "--log", str(log))
    descriptor = subprocess.DEVNULL if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return StartedServer(process, log)


async def until_ready(started: StartedServer, settings: Settings, patience: float = _PATIENCE) -> None:
    """Waits for the first answer, and for the process's end, whichever comes first.

    A server listens a while before it answers: what is silent there may be ours, or one that another command starts.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience
    strange_until = loop.time() + min(patience, _STRANGE)
    async with client(settings) as server:
        while True:
            died = await asyncio.to_thread(_ended, started.process)
            try:
                await server.identify()
                return  # even if ours died: then another command's server came first
            except NotPuna:
                if loop.time() > (give_up if died is None else strange_until):
                    raise
            except ServerUnreachable as error:
                if died is not None:
                    cause = f"the server ended with status {died}"
                elif loop.time() > give_up:
                    cause = f"the server does not answer after {patience:.0f} seconds"
                else:
                    continue
                raise ServerNotStarted(f"{cause}{_end_of(started.log)}") from error


def log_path(address: Address) -> Path | None:
    """Where the log of a server at `address` can be written: among this user's state, or else the temporary files."""
    for directory in (places.state(), places.temporary()):
        if directory is None:
            continue
        path = directory / f"serve-{address.port}.log"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        except OSError:
            continue
        return path
    return None


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """Its exit status if it ends within a round."""
    try:
        return process.wait(_ROUND)
    except subprocess.TimeoutExpired:
        return None


def _end_of(log: Path | None) -> str:
    if log is None:
        return "; run 'puna serve' to see why"
    lines = log.read_text(errors="replace").splitlines()[-_TOLD_LINES:]
    text = "\n".join(f"  {line}" for line in lines) or "  (it is empty)"
    return f"; the end of {log}:\n{text}"


def _stop_command(address: Address) -> str:
    return "puna serve --stop" + (f" --port {address.port}" if address.port != DEFAULT_PORT else "")


def _local(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
