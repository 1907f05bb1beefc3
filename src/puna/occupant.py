"""Which process of this machine listens on a port: for errors about an address that is taken."""

from __future__ import annotations

import psutil


def process_on(port: int) -> str:
    """Such as 'ollama, process 123'; '' when it cannot be known, as of another user's process."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return ""
    for connection in connections:
        where = connection.laddr
        if connection.status == psutil.CONN_LISTEN and where and where[1] == port and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()}, process {connection.pid}"
            except psutil.Error:
                return f"process {connection.pid}"
    return ""
