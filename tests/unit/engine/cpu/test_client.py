"""The server's side of the cpu engine, without a child (see tests/real/cpu/test_child.py for the rest)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from puna.engine.cpu.client import refuse, without_effect
from puna.engine.runner import LoadOptions, ModelFiles
from puna.errors import LoadFailed

FILES = ModelFiles(Path("m.gguf"), "0" * 64, "llama", "Q4_1")


def test_the_server_loads_nothing_heavy_with_it() -> None:
    code = (
        "import sys, puna.engine.cpu.client\n"
        "heavy = {'numpy', 'openvino', 'tokenizers', 'llguidance'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_what_it_does_not_do_is_refused() -> None:
    with pytest.raises(LoadFailed, match="embed"):
        refuse(FILES, LoadOptions(num_ctx=64, slots=1, embedding=True))
    refuse(FILES, LoadOptions(num_ctx=64, slots=1))


def test_settings_that_mean_nothing_here_are_named() -> None:
    load = LoadOptions(num_ctx=64, slots=1, num_batch=64, num_thread=2, use_mmap=True)
    assert without_effect(load) == ()
    load = LoadOptions(num_ctx=64, slots=1, num_gpu=0, main_gpu=1, use_mmap=False, cache_type="q4_0")
    assert without_effect(load) == ("num_gpu", "main_gpu", "use_mmap", "cache_type")
