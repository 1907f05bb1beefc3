"""The life of a child: what it may know, how it starts, fails, dies and ends; and that none is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fakes.gguf_files import write_tiny_llama
from fakes.runners import Start
from fakes.waiting import turn, until
from puna.engine.llama.engine import LlamaEngine
from puna.engine.runner import LoadOptions, ModelFiles, Prompt, Runner, Sampling
from puna.errors import EngineError, LoadTimeout, ModelFileError, RunnerDied
from puna.model.gguf import read_header
from puna.settings import Settings

LOAD = LoadOptions(num_ctx=512, slots=2)

PARENT = """
import asyncio, sys
from pathlib import Path
from puna.engine.llama.engine import LlamaEngine
from puna.engine.runner import LoadOptions, ModelFiles
from puna.settings import Settings

async def main():
    engine = LlamaEngine(Settings(models=Path("none")))
    files = ModelFiles(Path(sys.argv[1]), "", "llama", "Q4_1")
    if sys.argv[2] == "loading":
        print("starting", flush=True)
    runner = await engine.start(files, LoadOptions(num_ctx=512, slots=1))
    print(runner.info.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def engines() -> list[psutil.Process]:
    """Children of this process in which an engine runs. A server of other tests may have children of its own."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "puna.engine" in " ".join(child.cmdline()):
                found.append(child)
    return found


async def child_of_ours(task: asyncio.Task[Runner]) -> psutil.Process:
    """The child that `task` starts, as soon as it is there."""
    while True:
        assert not task.done()
        for child in engines():
            return child
        await turn()


async def test_a_child_has_its_own_session_and_none_of_our_secrets(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUNA_API_KEYS", "sk-secret")
    monkeypatch.setenv("HF_TOKEN", "hf-secret")
    monkeypatch.setenv("CUDA_API_KEY", "secret")
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "64")
    runner = await start()
    assert runner.info.pid is not None
    child = psutil.Process(runner.info.pid)
    environment = child.environ()
    assert not any("secret" in value for value in environment.values())
    assert not any(name.startswith(("LLAMA_ARG", "PUNA_API", "HF_")) for name in environment)
    assert "PATH" in environment
    if sys.platform == "linux":
        assert os.getsid(runner.info.pid) == runner.info.pid
        inherited = [str(Path(f"/proc/{runner.info.pid}/fd/{fd}").readlink()) for fd in (0, 1, 2)]
        assert inherited[0].startswith("pipe:")
        assert inherited[1] == "/dev/null"
        sockets = psutil.Process(runner.info.pid).net_connections("inet")
        assert sockets == []
        directory = Path(f"/proc/{runner.info.pid}/cwd").readlink()
        assert directory.stat().st_mode & 0o777 == 0o700
        await runner.close()
        assert not directory.exists()


async def test_close_ends_it_and_may_be_called_twice(start: Start) -> None:
    runner = await start()
    assert runner.info.pid is not None
    child = psutil.Process(runner.info.pid)
    await asyncio.gather(runner.close(), runner.close())
    assert gone(child)
    assert await runner.died == "closed"
    with pytest.raises(RunnerDied):
        await runner.busy()


async def test_ctrl_c_is_not_for_the_child(start: Start) -> None:
    runner = await start()
    assert runner.info.pid is not None
    os.kill(runner.info.pid, signal.SIGINT)
    assert await runner.tokenize("still here", special=False, bos=False)


async def test_a_failed_load_has_the_engines_reason(tmp_path: Path, smollm2_gguf: Path) -> None:
    # The header is whole, so the engine gets to see the file; it is of a family that nobody knows.
    unknown = tmp_path / "unknown.gguf"
    family = b"general.architecture\x08\x00\x00\x00\x05" + bytes(7)
    data = smollm2_gguf.read_bytes()
    assert family + b"llama" in data
    unknown.write_bytes(data.replace(family + b"llama", family + b"lxama", 1))
    with pytest.raises(ModelFileError, match="lxama"):
        await LlamaEngine(Settings(models=Path("none"))).start(ModelFiles(unknown, "", "lxama", "Q4_1"), LOAD)
    assert not engines()


async def test_a_vocabulary_that_cannot_write_a_letter_is_told(tmp_path: Path) -> None:
    """It is of bytes, and said to be another kind, which llama.cpp loads and cannot use."""
    file = write_tiny_llama(tmp_path / "m.gguf", head=32, metadata={"tokenizer.ggml.model": "llama"})
    with pytest.raises(ModelFileError, match="/tokenize"):
        await LlamaEngine(Settings(models=Path("none"))).start(ModelFiles(file, "", "llama", "F32"), LOAD)
    assert not engines()


async def test_tensors_that_lie_askew_are_copied(tmp_path: Path) -> None:
    """In place llama.cpp would take none that does not begin at a multiple of 32 bytes."""
    for pad in range(4):
        path, said = tmp_path / f"{pad}.gguf", {"general.version": "x" * 8 * pad}
        file = write_tiny_llama(path, head=32, alignment=8, metadata=said)
        if any(tensor.offset % 32 for tensor in read_header(file).tensors):
            break
    else:
        pytest.fail("all lie straight")
    runner = await LlamaEngine(Settings(models=Path("none"))).start(ModelFiles(file, "", "llama", "F32"), LOAD)
    assert [step async for step in runner.generate(Prompt((1, 2)), Sampling(max_tokens=2, seed=1, ignore_eos=True))]
    await runner.close()


async def test_a_load_that_shows_no_life_is_given_up(smollm2_gguf: Path) -> None:
    engine = LlamaEngine(Settings(models=Path("none"), load_timeout=0.3))
    task = asyncio.create_task(engine.start(ModelFiles(smollm2_gguf, "", "llama", "Q4_1"), LOAD))
    child = await child_of_ours(task)
    child.suspend()
    with pytest.raises(LoadTimeout, match=r"no sign of life for 0\.3 s"):
        await task
    assert gone(child)


async def test_an_aborted_load_leaves_no_child(smollm2_gguf: Path) -> None:
    engine = LlamaEngine(Settings(models=Path("none")))
    task = asyncio.create_task(engine.start(ModelFiles(smollm2_gguf, "", "llama", "Q4_1"), LOAD))
    child = await child_of_ours(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone(child)


async def test_a_crash_in_mid_stream_is_told_with_its_cause(start: Start) -> None:
    runner = await start()
    assert runner.info.pid is not None
    prompt = Prompt(tuple(await runner.tokenize("Once upon a time", special=False, bos=True)))
    stream = runner.generate(prompt, Sampling(max_tokens=400, seed=1, ignore_eos=True))
    await anext(stream)
    os.kill(runner.info.pid, signal.SIGKILL)
    with pytest.raises(RunnerDied, match="SIGKILL"):
        [step async for step in stream]
    assert "SIGKILL" in await runner.died
    with pytest.raises(EngineError):
        await runner.tokenize("x", special=False, bos=False)


@pytest.mark.parametrize("when", ["loading", "loaded"])
def test_no_child_outlives_a_killed_server(when: str, smollm2_gguf: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(smollm2_gguf), when]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline()
            server = psutil.Process(parent.pid)
            until(server.children, 20, "the child to be started")
            [child] = server.children()
            # Killed while native code holds the interpreter, in the one case.
            if when != "loaded":
                until(lambda: "child" in " ".join(child.cmdline()), 20, "the child to run its program")
        finally:
            parent.kill()
        until(lambda: gone(child), 30, "the child to be gone")
