"""What the library says of processors that this machine is not: qemu's user mode stands in for them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from native_build import SOURCES, VARIANTS

from puna.settings import CPU_VARIANTS

NEEDS_QEMU = pytest.mark.skipif(
    not (shutil.which("qemu-aarch64") and shutil.which("qemu-x86_64")), reason="needs qemu-user (apt install qemu-user)"
)
PROGRAM = """
#include <stdint.h>
#include <stdio.h>
int32_t puna_supported(const char *variant);
const char *puna_variant(void);
int main(int count, char **names) {
    puts(NAME);
    for (int i = 1; i < count; i++) if (puna_supported(names[i])) puts(names[i]);
}
"""


def program(folder: Path, sources: Sequence[Path], flags: Sequence[str]) -> str:
    (folder / "main.c").write_text(PROGRAM, encoding="utf-8")
    words = [sys.executable, "-m", "ziglang", "cc", "-std=c11", "-O1", "-ffp-contract=off", "-D_DEFAULT_SOURCE", *flags]
    subprocess.run([*words, "-o", str(folder / "asked"), str(folder / "main.c"), *map(str, sources)], check=True)
    return str(folder / "asked")


def said(emulator: str, processor: str, program: str) -> list[str]:
    words = [emulator, "-cpu", processor, program, *CPU_VARIANTS]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


@NEEDS_QEMU
@pytest.mark.skipif(sys.platform != "linux", reason="a program of Linux, with this machine's C library")
def test_an_x86_processor_runs_the_variants_that_it_has_instructions_for(tmp_path: Path) -> None:
    flags = ("-target", "x86_64-linux-gnu.2.17", '-DNAME="x86"')
    asked = program(tmp_path, [SOURCES / "processor.c"], flags)
    answers = {cpu: said("qemu-x86_64", cpu, asked)[1:] for cpu in ("core2duo", "Nehalem", "Haswell")}
    assert answers == {"core2duo": [], "Nehalem": ["portable"], "Haswell": ["avx2", "portable"]}


@NEEDS_QEMU
@pytest.mark.timeout(600)  # the compiler makes a whole C library for it first
def test_the_library_of_an_aarch64_answers_there(tmp_path: Path) -> None:
    """All of it, in a program that needs nothing of the system it runs on."""
    (dotprod,) = (variant for variant in VARIANTS["aarch64"] if variant.name == "dotprod")
    flags = ("-target", "aarch64-linux-musl", "-static", *dotprod.zig, "-DNAME=puna_variant()")
    asked = program(tmp_path, sorted(SOURCES.glob("*.c")), flags)
    assert said("qemu-aarch64", "cortex-a76", asked) == ["dotprod", "dotprod", "portable"]
    assert said("qemu-aarch64", "cortex-a53", asked) == ["dotprod", "portable"]
