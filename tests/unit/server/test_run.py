from __future__ import annotations

import resource
import subprocess
import sys

from puna.server.run import open_many_files, within_files
from puna.settings import Settings


def test_a_server_may_open_as_many_files_as_it_is_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert open_many_files() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_connections_leave_files_for_what_they_ask_for() -> None:
    settings = Settings.from_environment({"PUNA_MAX_CONNECTIONS": "1000"})
    assert [within_files(settings, files).max_connections for files in (16, 64, 1024)] == [1, 5, 325]
    assert within_files(settings, 1_000_000) is within_files(settings, None) is settings


def test_a_server_that_gets_no_thread_any_more_ends_when_it_is_told_to() -> None:
    """The signal's handler needs one, to end what does not end by itself."""
    code = (
        "import asyncio, os, signal, threading\n"
        "from puna.server import run\n"
        "async def main():\n"
        "    told = asyncio.Event()\n"
        "    with run._signals(told.set):\n"
        "        threading.stack_size(1 << 46)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        await asyncio.wait_for(told.wait(), 20)\n"
        "    print(signal.alarm(0) > 0)\n"
        "asyncio.run(main())\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stdout) == (0, "True\n"), said.stderr
