"""How the native library is built: by whom, for whom, and what an installation says when it cannot be."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import native_build
import pytest
from native_build import TARGETS, VARIANTS, BuildFailed, Compiler, build, build_or_record, compiler, needed, plan

from puna.engine.cpu import library
from puna.settings import CPU_VARIANTS

ROOT = Path(native_build.__file__).parent
DOOR = """
#include "number.h"
__attribute__((visibility("default"))) int puna_number(void) { return NUMBER; }
int puna_hidden(void) { return NUMBER + 1; }
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Of a library with one function."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "door.c").write_text(DOOR, encoding="utf-8")
    (folder / "number.h").write_text("#define NUMBER 7\n", encoding="utf-8")
    return folder


def failing(folder: Path) -> Compiler:
    """A compiler that says why it fails."""
    return Compiler("zig", (sys.executable, "-c", "import sys; sys.exit('no such instruction')"), "1")


def test_the_loader_knows_every_variant_that_is_built() -> None:
    assert {variant.name for each in VARIANTS.values() for variant in each} == set(CPU_VARIANTS)


def test_one_version_of_the_compiler_is_named() -> None:
    named = re.findall(r'"(ziglang==[^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert len(named) == 2
    assert len(set(named)) == 1


def test_nothing_is_built_twice_and_a_change_is_seen(sources: Path, tmp_path: Path) -> None:
    target, out = TARGETS[native_build.machine_name()], tmp_path / "out"

    def built() -> list[str]:
        return build(plan(target, compiler(), only=["portable"], sources=sources), target, out)

    assert built() == ["portable"]
    before = (out / "built.json").stat().st_mtime_ns
    assert built() == []
    assert (out / "built.json").stat().st_mtime_ns == before, "nothing is written beside others who read or build"
    (sources / "number.h").write_text("#define NUMBER 8\n", encoding="utf-8")
    assert built() == ["portable"]
    (out / f"portable{target.suffix}").unlink()
    assert built() == ["portable"]
    assert {path.name for path in out.iterdir()} == {f"portable{target.suffix}", "built.json"}


def test_another_name_of_the_same_compiler_builds_nothing_anew(sources: Path) -> None:
    """pip installs by `python3`, and the tests are run by `python`: both are one program."""
    target, by = TARGETS[native_build.machine_name()], compiler()
    also = replace(by, command=("/usr/bin/python", *by.command[1:]))
    assert [work.digest for work in plan(target, also, sources=sources)] == [
        work.digest for work in plan(target, by, sources=sources)
    ]
    newer = replace(by, version="99")
    assert not {work.digest for work in plan(target, newer, sources=sources)} & {
        work.digest for work in plan(target, by, sources=sources)
    }


def test_what_was_built_of_other_sources_goes_and_nothing_else(sources: Path, tmp_path: Path) -> None:
    target, out = TARGETS[native_build.machine_name()], tmp_path / "out"
    build(plan(target, compiler(), only=["portable"], sources=sources), target, out)
    other = "avx2" if target.processor == "x86_64" else "dotprod"
    foreign = out / f"foreign{target.suffix}"
    foreign.touch()
    build(plan(target, compiler(), only=[other], sources=sources), target, out)
    assert {path.stem for path in out.glob(f"*{target.suffix}")} == {"portable", other, "foreign"}
    (sources / "number.h").write_text("#define NUMBER 8\n", encoding="utf-8")
    build(plan(target, compiler(), only=[other], sources=sources), target, out)
    assert {path.stem for path in out.glob(f"*{target.suffix}")} == {other, "foreign"}
    assert build_or_record(out, by="no-such-cc") is None
    assert list(out.glob(f"*{target.suffix}")) == [foreign]


def test_what_others_build_meanwhile_is_not_forgotten(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, out, by = TARGETS[native_build.machine_name()], tmp_path / "out", compiler()
    usual, sanitized = (
        plan(target, by, only=["portable"], sanitize=sanitize, sources=sources) for sanitize in (False, True)
    )
    checked = native_build._check_exports

    def check(library: Path, sources: Iterable[Path]) -> None:
        monkeypatch.setattr(native_build, "_check_exports", checked)
        build(sanitized, target, out)
        checked(library, sources)

    monkeypatch.setattr(native_build, "_check_exports", check)
    build(usual, target, out)
    assert set(json.loads((out / native_build.RECORD).read_text())["libraries"]) == {"portable", "portable-sanitized"}


@pytest.mark.parametrize("by", ["zig", *(name for name in ("gcc", "clang") if shutil.which(name))])
def test_every_compiler_builds_what_is_exported_and_no_more(by: str, sources: Path, tmp_path: Path) -> None:
    from ctypes import CDLL

    target = TARGETS[native_build.machine_name()]
    work = plan(target, compiler(by), only=["portable"], sources=sources)
    assert build(work, target, tmp_path) == ["portable" if by == "zig" else f"portable-{by}"]
    library = CDLL(str(tmp_path / f"{work[0].label}{target.suffix}"))
    assert library.puna_number() == 7
    assert not hasattr(library, "puna_hidden")


def test_a_compiler_that_fails_is_told_and_nothing_is_left(sources: Path, tmp_path: Path) -> None:
    target, out = TARGETS["linux-x86_64"], tmp_path / "out"
    with pytest.raises(BuildFailed, match="the compiler failed: no such instruction"):
        build(plan(target, failing(tmp_path), sources=sources), target, out)
    assert list(out.iterdir()) == []


def test_a_function_that_is_marked_and_not_exported_is_told(sources: Path, tmp_path: Path) -> None:
    target, out = TARGETS[native_build.machine_name()], tmp_path / "out"
    (sources / "more.c").write_text("#define EXPORT\nEXPORT int puna_more(void) { return 9; }\n", encoding="utf-8")
    with pytest.raises(BuildFailed, match="portable.* does not export puna_more"):
        build(plan(target, compiler(), only=["portable"], sources=sources), target, out)
    assert list(out.iterdir()) == []


def test_a_compiler_that_is_not_there_is_told() -> None:
    with pytest.raises(BuildFailed, match="no-such-cc cannot be run"):
        compiler("no-such-cc")


def test_a_variant_that_is_not_there_is_told(sources: Path) -> None:
    with pytest.raises(BuildFailed, match="there is no variant sse9, only avx2, avx512vnni, avxvnni, portable"):
        plan(TARGETS["linux-x86_64"], failing(sources), only=["sse9"], sources=sources)


def test_an_installation_has_what_this_processor_is_best_at_and_what_serves_others(tmp_path: Path) -> None:
    target = TARGETS[native_build.machine_name()]
    names = needed(target, compiler(), tmp_path)
    assert {variant.name for variant in target.variants if variant.everywhere} <= set(names)
    assert library.variant("") in names
    assert len(names) <= 3
    assert sorted(each.label for each in plan(target, compiler(), only=names)) == sorted(names)


def test_the_better_variants_stand_later() -> None:
    for variants in VARIANTS.values():
        order = [CPU_VARIANTS.index(variant.name) for variant in variants]
        assert order == sorted(order, reverse=True)


def test_an_installation_goes_on_without_a_library_and_keeps_the_reason(tmp_path: Path) -> None:
    assert build_or_record(tmp_path, by="no-such-cc") is None
    record = json.loads((tmp_path / "built.json").read_text(encoding="utf-8"))
    assert "no-such-cc cannot be run" in record["failure"]
    with pytest.raises(BuildFailed):  # who names a target wants it
        build_or_record(tmp_path, "linux-aarch64", by="no-such-cc")
    with pytest.raises(BuildFailed, match="PUNA_BUILD_TARGET=amiga: expected one of linux-x86_64"):
        build_or_record(tmp_path, "amiga")


def wheel(out: Path, **environment: str) -> tuple[str, dict[str, bytes]]:
    """The name of the wheel that hatchling makes of this tree, and its files under `native/` and in its metadata."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if "/native/" in name or name.endswith("/WHEEL")]
        return path.name, {name: archive.read(name) for name in names}


@pytest.mark.timeout(600)  # it compiles everything for another processor
def test_a_wheel_has_the_libraries_of_its_platform(tmp_path: Path) -> None:
    name, files = wheel(tmp_path, PUNA_BUILD_TARGET="linux-aarch64")
    assert name == "puna-0.1.0-py3-none-manylinux_2_17_aarch64.whl"
    native = {path.partition("/native/")[2] for path in files if "/native/" in path}
    assert native == {"built/portable.so", "built/dotprod.so", "built/built.json"}, "and no source"
    ends = [content for path, content in files.items() if path.endswith(".so")]
    assert all(content[:4] == b"\x7fELF" and content[18] == 183 for content in ends), "of an aarch64"
    (about,) = (content.decode() for path, content in files.items() if path.endswith("/WHEEL"))
    assert "Root-Is-Purelib: false" in about
    assert "Tag: py3-none-manylinux_2_17_aarch64" in about


def test_a_wheel_without_a_compiler_is_one_for_any_machine_and_says_why(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.metadata as m\nread = m.version\n"
        "def version(name):\n    if name == 'ziglang': raise m.PackageNotFoundError(name)\n    return read(name)\n"
        "m.version = version\n",
        encoding="utf-8",
    )
    name, files = wheel(tmp_path / "out", PYTHONPATH=str(hidden))
    assert name == "puna-0.1.0-py3-none-any.whl"
    native = {path.partition("/native/")[2]: content for path, content in files.items() if "/native/" in path}
    assert set(native) == {"built/built.json"}
    assert "pip install ziglang" in json.loads(native["built/built.json"])["failure"]
