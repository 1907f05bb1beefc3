import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from fakes.waiting import turns_until
from puna.errors import SourceError, SourceNotFound, StoreError
from puna.sources.packages import pip_client
from puna.sources.packages.pip_client import DOWNLOADS, download, download_arguments, failure, pip_command


def test_only_wheels_and_no_dependencies() -> None:
    arguments = download_arguments("x==1", Path("there"))
    assert arguments[:4] == ("download", "--no-deps", "--only-binary", ":all:")
    assert arguments[-3:] == ("--dest", "there", "x==1")


def test_command_is_this_interpreters() -> None:
    assert pip_command()[0] == sys.executable


NONE = "ERROR: Could not find a version that satisfies the requirement {} (from versions: {})"
MATCH = "ERROR: No matching distribution found for x"
RETRY = "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(...)': /simple/x/"


@pytest.mark.parametrize(
    ("lines", "kind", "words"),
    [
        ([NONE.format("x", "none"), MATCH], SourceNotFound, "no wheel of x"),
        ([NONE.format("x", "0.1, 0.2"), MATCH], SourceNotFound, "there are 0.1, 0.2"),
        ([RETRY, NONE.format("x", "none"), MATCH], SourceError, "could not be reached"),
        (
            ["Downloading x-1-py3-none-any.whl (92.9 MB)", "ERROR: Could not install: ReadTimeoutError: timed out"],
            SourceError,
            "Pulling again begins this file anew",
        ),
        (["ERROR: Invalid requirement: 'x=='"], SourceNotFound, "not the name"),
        (
            ["ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"],
            StoreError,
            "space",
        ),
        (["Looking", "ERROR: HTTP error 500 while getting http://h/x.whl"], SourceError, "HTTP error 500"),
        (["Traceback", "  File", "RuntimeError: odd", ""], SourceError, "RuntimeError: odd"),
        ([], SourceError, "it said nothing"),
    ],
)
def test_essence(lines: list[str], kind: type[Exception], words: str) -> None:
    error = failure("x", lines)
    assert type(error) is kind
    assert words in str(error)


WAITS = "import sys; sys.stdin.read()  # a pip whose index never answers"


async def test_a_hundred_pulls_start_few_processes(tmp_path: Path) -> None:
    told: list[str] = []

    async def pull(number: int) -> None:
        directory = tmp_path / str(number)
        directory.mkdir()
        command = (sys.executable, "-S", "-c", WAITS)
        async for step in download(f"p{number}", directory, digest="d", command=command):
            told.append(step.status)  # noqa: PERF401 - each as it comes

    def pips() -> int:
        return sum(WAITS in child.cmdline() for child in psutil.Process().children())

    pulls = [asyncio.create_task(pull(number)) for number in range(100)]
    await turns_until(lambda: len(told) == 100 - DOWNLOADS and pips() == DOWNLOADS, 30, "few pips")
    assert all("waiting for other packages" in status for status in told)
    for one in pulls:
        one.cancel()
    await asyncio.gather(*pulls, return_exceptions=True)
    assert pips() == 0


async def test_a_pip_that_is_stopped_ends_its_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip_client, "SILENCE_SECONDS", 0.5)
    stops = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    with pytest.raises(SourceError, match="made no step"):
        async for _ in download("p", tmp_path, digest="d", command=(sys.executable, "-S", "-c", stops)):
            pass
    assert not any(stops in child.cmdline() for child in psutil.Process().children())
