"""What a child may know, and why it died."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from puna.engine.process import (
    SOCKET_PATH_LIMIT,
    ChildProcess,
    cause,
    child_environment,
    private_directory,
    remove_private,
    runner_environment,
)
from puna.errors import LoadFailed

SECRETS = (
    "PUNA_API_KEYS", "OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "CUDA_TOKEN", "GGML_PASSWORD",
    "PIP_INDEX_URL", "http_proxy", "LLAMA_ARG_THREADS", "SSH_AUTH_SOCK",
)  # fmt: skip


def test_an_environment_without_secrets() -> None:
    wanted = {"PATH": "/bin", "LC_ALL": "C", "CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "2", "GGML_VK_X": "1"}
    secrets = dict.fromkeys(SECRETS, "x")
    assert child_environment({**wanted, **secrets}) == wanted


def test_a_runners_threads_sleep_soon_unless_the_user_says_how_they_wait() -> None:
    assert 0 < int(runner_environment({})["GOMP_SPINCOUNT"]) <= 20_000
    assert runner_environment({"GOMP_SPINCOUNT": "7"})["GOMP_SPINCOUNT"] == "7"
    assert "GOMP_SPINCOUNT" not in runner_environment({"OMP_WAIT_POLICY": "passive"})


@pytest.mark.parametrize(
    ("returncode", "lines", "told"),
    [
        (0, [], "exited with 0"),
        (-9, ["0.1 W srv init: no key", "0.2 E llama: outlived"], "killed by SIGKILL (out of memory?)"),
        (-11, ["loading"], "killed by SIGSEGV: loading"),
        (-11, [], "killed by SIGSEGV"),
        (-11, ["0.1 I srv load", "0.00.003.834 W srv init: security: no key"], "killed by SIGSEGV"),
        (1, ["0.1 I srv load", "0.2 E llama: bad tensor", "0.3 E srv: failed"], "exited with 1: llama: bad tensor"),
        (1, ["Traceback", "  File x", "ValueError: no"], "exited with 1: ValueError: no"),
        (3, ["some last words", ""], "exited with 3: some last words"),
        (
            -6,
            ["0.1 E outlived", "/a/b.dir/mtmd.cpp:16: GGML_ASSERT(x > 0) failed", "57\t./nptl/futex.c: No such file"],
            "killed by SIGABRT: mtmd.cpp:16: GGML_ASSERT(x > 0) failed",
        ),
    ],
)  # fmt: skip
def test_the_cause_of_a_death(returncode: int, lines: list[str], told: str) -> None:
    assert cause(returncode, lines) == told


def test_a_private_directory_is_short_and_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    directory = private_directory()
    assert len(os.fsencode(directory)) < SOCKET_PATH_LIMIT
    assert directory.stat().st_mode & 0o777 == 0o700
    assert not any(deep.iterdir())
    directory.rmdir()


HOLD = """
import fcntl, os, sys
held = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
input()
"""


@pytest.mark.skipif(os.name == "nt", reason="directories are not locked there")
def test_what_another_container_uses_is_not_taken_for_left_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its processes are not seen from here, as that of this number is not."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("puna.engine.process.SOCKET_PATH_LIMIT", 4096)  # pytest's directories are deep
    used, left, young = (tmp_path / f"puna-4194304-{name}" for name in ("used0000", "left0000", "young000"))
    for directory in (used, left, young):
        directory.mkdir()
        (directory / "runner.sock").touch()
    for directory in (used, left):
        os.utime(directory, (0, 0))
    command = [sys.executable, "-c", HOLD, str(used)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        first = private_directory()
        assert sorted(tmp_path.iterdir()) == sorted([used, young, first])
        holder.communicate("\n")
    second = private_directory()
    assert sorted(tmp_path.iterdir()) == sorted([young, first, second])
    before = len(list(Path("/dev/fd").iterdir()))
    for own in (first, second):
        remove_private(own)
    assert list(tmp_path.iterdir()) == [young]
    assert len(list(Path("/dev/fd").iterdir())) == before - 2


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    directory = tmp_path / "own"
    directory.mkdir()
    with pytest.raises(LoadFailed, match="cannot be run"):
        await ChildProcess.start([str(tmp_path / "none")], directory)
    assert not directory.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets itself be told")
async def test_when_memory_is_gone_the_system_ends_it_before_the_server(tmp_path: Path) -> None:
    directory = tmp_path / "own"
    directory.mkdir()
    child = await ChildProcess.start([sys.executable, "-c", "input()"], directory)
    scores = [int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (os.getpid(), child.pid)]
    await child.close()
    assert scores[0] < scores[1] <= 1000


async def test_its_last_words_are_kept(tmp_path: Path) -> None:
    code = "import sys; sys.stderr.write('x' * 100000 + '\\nlast words'); sys.exit(4)"
    child = await ChildProcess.start([sys.executable, "-c", code], tmp_path / "." / "")
    assert await asyncio.wait_for(child.died, 20) == "exited with 4: last words"
    assert all(len(line) <= 2000 for line in child.lines)


async def test_one_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("puna.engine.process.STOP_GRACE", 0.1)
    directory = tmp_path / "own"
    directory.mkdir()
    code = (
        "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); sys.stderr.write('deaf\\n');"
        "sys.stderr.flush(); signal.pause(); signal.pause()"
    )
    child = await ChildProcess.start([sys.executable, "-c", code], directory)
    while not child.lines:
        await asyncio.wait({child.died}, timeout=0.01)
    await child.close()
    assert await child.died == "closed"
    assert not directory.exists()
