"""The library itself, as it was built in this tree: it is this version's, and says what it is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from puna.engine.cpu import library
from puna.settings import CPU_VARIANTS, SettingError


def test_it_loads_as_the_variant_that_was_picked() -> None:
    assert library.why_not() is None
    name = library.variant()
    loaded = library.load()
    assert loaded.puna_variant().decode() == name.partition("-")[0]
    assert loaded.puna_abi() == library.ABI


def test_every_variant_that_the_processor_runs_loads() -> None:
    portable = library.opened("portable")
    names = [name for name in CPU_VARIANTS if portable.puna_supported(name.encode())]
    assert "portable" in names
    for name in names:
        assert library.load(name).puna_variant().decode() == name
    assert not portable.puna_supported(b"sse9")


def test_the_variable_forces_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUNA_CPU_VARIANT", "portable")
    assert library.variant() == "portable"
    monkeypatch.setenv("PUNA_CPU_VARIANT", "sse9")
    with pytest.raises(SettingError):
        library.variant()
    assert "PUNA_CPU_VARIANT='sse9'" in str(library.why_not())


def test_asking_imports_nothing_heavy() -> None:
    asked = "import sys; from puna.engine.cpu import library; library.why_not(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, env=os.environ)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "ctypes" in loaded, "it was looked at"
    assert not loaded & {"numpy", "regex", "llguidance", "xllamacpp"}
