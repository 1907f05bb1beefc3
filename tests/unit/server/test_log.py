"""The log file: rotated, bounded; a log that cannot be written stops nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(code: str, *arguments: str, stderr: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a LogFile takes the place of stdout and stderr."""
    return subprocess.run([sys.executable, "-c", code, *arguments], stderr=stderr, text=True, timeout=60)


def test_it_is_rotated_and_bounded(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from puna.server.log import LogFile\n"
        "log = LogFile(Path(sys.argv[1]), max_bytes=1000, kept=3)\n"
        "for number in range(200):\n    log.write(f'line {number:03} {\"x\" * 90}\\n')\n"
        "os.write(2, b'a word of a library\\n')\n"
    )
    log = tmp_path / "logs" / "serve.log"
    assert run(code, str(log)).returncode == 0
    files = sorted(log.parent.iterdir())
    assert [file.name for file in files] == ["serve.log", "serve.log.1", "serve.log.2", "serve.log.3"]
    assert all(file.stat().st_size < 1300 for file in files)
    lines = [line for file in reversed(files) for line in file.read_text().splitlines()]
    assert lines[-1] == "a word of a library", "whatever the process writes is in the file that is open now"
    numbers = [int(line.split()[1]) for line in lines[:-1]]
    assert numbers == list(range(numbers[0], 200)), "nothing is lost between two files"


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    code = (
        "import structlog; from puna.server.log import configure_logging\n"
        "configure_logging(debug=False)\n"
        "structlog.stdlib.get_logger('x').info('hello')\nraise SystemExit(7)"
    )
    with Path("/dev/full").open("w") as full:
        assert run(code, stderr=full.fileno()).returncode == 7


def test_lines_that_were_lost_are_counted_by_the_next_one_that_is_not(tmp_path: Path) -> None:
    """The log's file system is full for a while, from the middle of a line on."""
    code = (
        "import resource, signal, structlog, sys; from puna.server.log import LogStream, configure_logging\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "configure_logging(debug=False)\n"
        "log = structlog.get_logger()\n"
        "log.info('first')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "for word in ('torn' + 99 * '.', 'second', 'third'): log.info(word)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "log.info('fourth'); log.info('fifth')\n"
        "assert LogStream.lost_by_all == 3, LogStream.lost_by_all\n"
    )
    log = tmp_path / "log"
    with log.open("wb", buffering=0) as file:
        assert run(code, stderr=file.fileno()).returncode == 0
    first, torn, fourth, fifth = log.read_text().splitlines()
    assert "first" in first
    assert "torn" in torn
    assert fourth.endswith("fourth lost=3")
    assert fifth.endswith("fifth")
