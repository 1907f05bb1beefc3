"""Models are carried to a machine without network, and run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.stores import add_file
from puna.model.digest import Digest
from puna.model.name import Name
from puna.store.library import Library
from real.conftest import free_port

NAME = Name.parse("carried:1")

ALONE = ("unshare", "--user", "--map-root-user", "--net")
"""A process with a network of its own, in which there is nothing, not even itself."""


def obstacle() -> str | None:
    """Why such a process cannot be had here."""
    if shutil.which("unshare") is None:
        return "there is no unshare on this system"
    tried = subprocess.run([*ALONE, "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"unshare is not allowed here: {tried.stderr.strip()}"


@pytest.fixture
def alone() -> None:
    if (reason := obstacle()) is not None:
        pytest.skip(reason)


@pytest.fixture
def there(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`there('list')`: `puna list` on a machine without network. `before`: a command of the shell that comes first."""
    environment = {
        **os.environ,
        "PUNA_HOST": f"127.0.0.1:{free_port()}",
        "PUNA_MODELS": str(tmp_path / "there"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }

    def puna(*arguments: str, before: str = ":") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*ALONE, "sh", "-c", f'{before} && exec "$0" -m puna "$@"', sys.executable, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
        )

    return puna


@pytest.mark.usefixtures("alone")
def test_without_network(
    smollm2_gguf: Path, there: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    here = add_file(tmp_path / "here", str(NAME), smollm2_gguf)
    archive = tmp_path / "carried.tar"
    done = subprocess.run(
        [sys.executable, "-m", "puna", "export", "carried:1", "-o", str(archive)],
        env={**os.environ, "PUNA_MODELS": str(here.root), "PUNA_HOST": f"127.0.0.1:{free_port()}"},
    )
    assert done.returncode == 0
    digest = Digest(here.resolve(NAME).digest)
    done = there("import", str(archive))
    assert (done.returncode, done.stdout) == (0, f"imported carried:1 {digest.short}\n"), done.stderr
    done = there("list")
    assert done.stdout.splitlines()[1].split()[:2] == ["carried:1", digest.short], done.stderr
    assert Library.open(tmp_path / "there").manifest_bytes(NAME) == here.manifest_bytes(NAME)
    if shutil.which("ip") is None:
        pytest.skip("taken in and listed; running it needs the loopback interface, and no 'ip' is here to turn it on")
    try:
        done = there("run", "carried:1", "--format", '{"const": "carried"}', "Say it.", before="ip link set lo up")
    finally:
        there("serve", "--stop")
    assert (done.returncode, done.stdout.strip()) == (0, '"carried"'), done.stderr


def test_in_packages(smollm2_gguf: Path, tmp_path: Path) -> None:
    """Into a folder of wheels, in two parts, and back by pip; then it answers."""
    here = add_file(tmp_path / "here", str(NAME), smollm2_gguf)
    folder = tmp_path / "wheels"
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PUNA_"))}
    environment |= {
        "PUNA_HOST": f"127.0.0.1:{free_port()}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
    }

    def puna(models: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "puna", *arguments],
            env={**environment, "PUNA_MODELS": str(tmp_path / models)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert puna("here", "package", "carried:1", "-o", str(folder)).endswith("puna pull pypi/carried-1:1.0.0\n")
    assert len(list(folder.iterdir())) == 3
    puna("there", "pull", "pypi/carried-1")
    name = Name.parse("pypi/carried-1")
    assert Library.open(tmp_path / "there").manifest_bytes(name) == here.manifest_bytes(NAME)
    try:
        answer = puna("there", "run", "pypi/carried-1", "--format", '{"const": "carried"}', "Say it.")
    finally:
        puna("there", "serve", "--stop")
    assert answer.strip() == '"carried"'
