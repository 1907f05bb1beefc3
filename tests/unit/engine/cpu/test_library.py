"""Which variant of the native library is taken, and what is said where there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from puna.engine.cpu import library
from puna.engine.cpu.library import pick
from puna.errors import LoadFailed
from puna.settings import CPU_VARIANTS, SettingError, Settings

X86 = ("portable", "avx2", "avxvnni", "avx512vnni")


@pytest.mark.parametrize(
    ("supported", "taken"),
    [
        (("portable",), "portable"),
        (("portable", "avx2"), "avx2"),
        (("portable", "avx2", "avxvnni"), "avxvnni"),
        (("portable", "avx2", "avx512vnni"), "avx512vnni"),
        (X86, "avx512vnni"),
    ],
)
def test_the_best_that_the_processor_runs_is_taken(supported: tuple[str, ...], taken: str) -> None:
    assert pick(X86, supported) == taken


def test_what_is_not_built_is_not_taken() -> None:
    assert pick(("portable", "avx2"), X86) == "avx2"
    assert pick(("portable", "dotprod"), ("portable", "dotprod")) == "dotprod"
    with pytest.raises(LoadFailed, match="not built for this processor"):
        pick(("avx2",), ("portable",))


def test_a_developers_build_is_taken_only_by_name() -> None:
    built = ("portable", "avx2-gcc", "avx2-gcc-sanitized")
    assert pick(built, X86) == "portable"
    assert pick(built, X86, "avx2-gcc-sanitized") == "avx2-gcc-sanitized"


def test_a_better_one_that_is_not_built_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert library.better() is None
    best = library.variant("")
    shutil.copy(next(library._BUILT.glob("portable.*")), tmp_path)
    monkeypatch.setattr(library, "_BUILT", tmp_path)
    assert library.variant("") == "portable"
    assert library.better() == (best if best != "portable" else None)


def test_a_wish_is_honoured_or_refused_by_name() -> None:
    assert pick(X86, ("portable", "avx2"), "portable") == "portable"
    with pytest.raises(SettingError, match=r"PUNA_CPU_VARIANT='avx512vnni': expected avx2 or portable .* instructions"):
        pick(X86, ("portable", "avx2"), "avx512vnni")
    with pytest.raises(SettingError, match="that variant is not built"):
        pick(X86, X86, "sse9")


def test_the_setting_knows_the_names(tmp_path: Path) -> None:
    for name in (*CPU_VARIANTS, "avx2-gcc-sanitized"):
        settings = Settings.from_environment({"PUNA_CPU_VARIANT": name, "PUNA_MODELS": str(tmp_path)})
        assert settings.cpu_variant == name
    with pytest.raises(SettingError, match="PUNA_CPU_VARIANT='sse9': expected avx512vnni, .* or portable"):
        Settings.from_environment({"PUNA_CPU_VARIANT": "sse9", "PUNA_MODELS": str(tmp_path)})


def test_why_there_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_BUILT", tmp_path)
    assert "is missing: install Puna again" in str(library.why_not())
    (tmp_path / "built.json").write_text(json.dumps({"failure": "no room", "libraries": {}}), encoding="utf-8")
    assert library.why_not() == "the cpu engine's library could not be built: no room"
    (tmp_path / f"portable{library._SUFFIX}").write_bytes(b"\x7fELF, damaged")
    assert "cannot be loaded" in str(library.why_not())
    with pytest.raises(LoadFailed, match="cannot be loaded"):
        library.load()
