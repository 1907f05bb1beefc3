"""The servers that this user runs on this machine: each leaves a small file while it serves.

A file whose process is gone, or whose number another process has by now, says nothing; it is removed when it is met.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil

from puna import places
from puna.settings import Address

_SAME_START = 2.0
"""Seconds by which two readings of a process's start may differ."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """What a server tells of itself in its file.

    `started`: seconds since the epoch. `log`: '' when it writes to its terminal. `models`: the directory.
    """

    pid: int
    started: float
    url: str
    host: str
    port: int
    version: str
    models: str
    log: str

    @property
    def since(self) -> datetime:
        return datetime.fromtimestamp(self.started, timezone.utc)

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        try:
            process = psutil.Process(self.pid)
            ended = process.status() == psutil.STATUS_ZOMBIE
            return not ended and abs(process.create_time() - self.started) < _SAME_START
        except psutil.Error:
            return False


def this_process(address: Address, *, version: str, models: Path, log: Path | None) -> RunningServer:
    """What to record of the server in this process. `address`: with the port that it really has."""
    return RunningServer(
        pid=os.getpid(),
        started=psutil.Process().create_time(),
        url=address.url,
        host=address.host,
        port=address.port,
        version=version,
        models=str(models),
        log=str(log or ""),
    )


def record(server: RunningServer) -> Path | None:
    """Where it is written; None when this user has no place for it."""
    for directory in _directories():
        path = directory / f"{server.pid}.json"
        temporary = path.with_suffix(".tmp")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(asdict(server)), "utf-8")
            temporary.replace(path)
        except OSError:
            continue
        return path
    return None


def running() -> list[RunningServer]:
    """All that run, the youngest first."""
    found: list[RunningServer] = []
    for path in (path for directory in _directories() for path in directory.glob("*.json")):
        server = _read(path)
        if server is not None and server.alive:
            found.append(server)
        else:
            with suppress(OSError):
                path.unlink()
    return sorted(found, key=lambda server: server.started, reverse=True)


def at(address: Address) -> RunningServer | None:
    """The one that a client of `address` reaches, if it is on this machine."""
    every = {"", "0.0.0.0", "::"}
    near = {"localhost", "127.0.0.1", "::1", *every}
    for server in running():
        same = server.host == address.host or server.host in every or {server.host, address.host} <= near
        if server.port == address.port and same:
            return server
    return None


def _read(path: Path) -> RunningServer | None:
    try:
        return RunningServer(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _directories() -> list[Path]:
    """The first that can be written is used; all are read."""
    return [place / "servers" for place in (places.state(), places.temporary()) if place is not None]
