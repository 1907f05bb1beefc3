"""The server's side of the cpu engine, without a child (see tests/real/cpu/test_child.py for the rest)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from puna.engine.cpu.client import CpuEngine, told
from puna.engine.cpu.protocol import Hello
from puna.engine.runner import LoadOptions, ModelFiles
from puna.errors import LoadFailed
from puna.settings import Settings

FILES = ModelFiles(Path("m.gguf"), "0" * 64, "llama", "Q4_1")


def test_the_server_loads_nothing_heavy_with_it() -> None:
    code = (
        "import sys, puna.engine.cpu.client\n"
        "heavy = {'numpy', 'regex', 'llguidance'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("load", "word"), [({"embedding": True}, "embed"), ({"cache_type": "q4_0"}, "q4_0")])
async def test_what_it_does_not_do_is_refused(load: dict[str, Any], word: str) -> None:
    with pytest.raises(LoadFailed, match=word):
        await CpuEngine(Settings(models=Path("none"))).start(FILES, LoadOptions(num_ctx=64, slots=1, **load))


def test_settings_that_mean_nothing_here_are_named() -> None:
    hello = Hello("1", 320, None, (2,), False, 64, 4096, 10**9, {})
    load = LoadOptions(num_ctx=64, slots=1, num_batch=64, num_thread=2, num_gpu=0, cache_type="f16")
    assert told(hello, load, "named") == "named"
    load = LoadOptions(num_ctx=64, slots=1, main_gpu=1, use_mmap=False, flash_attention=True)
    assert told(hello, load, "named") == "named; without effect here: main_gpu, use_mmap, flash_attention"


def test_a_cache_for_fewer_than_all_requests_is_told() -> None:
    hello = Hello("1", 320, None, (2,), False, 64, 4096, 10**9, {})
    assert "share a cache of 4096 tokens" in told(hello, LoadOptions(num_ctx=4096, slots=2), "")


def test_a_larger_step_than_it_computes_is_told() -> None:
    hello = Hello("1", 320, None, (2,), False, 64, 4096, 10**9, {})
    assert told(hello, LoadOptions(num_ctx=64, slots=1, num_batch=1025), "") == (
        "num_batch is 1024, the most that it computes in a step"
    )
