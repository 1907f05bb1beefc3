import sys
from pathlib import Path

import pytest

from puna.errors import SourceError, SourceNotFound, StoreError
from puna.sources.packages.pip_client import download_arguments, failure, pip_command


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
