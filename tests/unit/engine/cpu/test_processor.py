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
int main(int count, char **names) {
    puts(NAME);
    for (int i = 1; i < count; i++) if (puna_supported(names[i])) puts(names[i]);
}
"""
BARE = (
    PROGRAM
    + """
#include <string.h>
static long *start; /* the count of arguments, they, nothing, the environment, nothing, and what the kernel tells */
static long call(long number, long one, long two, long three) {
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = one, x1 __asm__("x1") = two, x2 __asm__("x2") = three;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
int strcmp(const char *one, const char *other) {
    while (*one && *one == *other) one++, other++;
    return (unsigned char)*one - (unsigned char)*other;
}
int puts(const char *line) {
    for (; *line; line++) call(64, 1, (long)line, 1);
    return (int)call(64, 1, (long)"\\n", 1);
}
unsigned long getauxval(unsigned long kind) {
    long *told = start + 1 + start[0] + 1;
    while (*told++) {}
    for (; told[0]; told += 2)
        if ((unsigned long)told[0] == kind) return (unsigned long)told[1];
    return 0;
}
__attribute__((used)) void begin(long *stack) {
    start = stack;
    main((int)stack[0], (char **)(stack + 1));
    call(93, 0, 0, 0);
}
__asm__(".global _start\\n_start:\\n mov x0, sp\\n bl begin\\n");
"""
)
"""The same for a Linux on aarch64, without a C library."""


def compiled(folder: Path, text: str, flags: Sequence[str], *end: str) -> str:
    """The program of that text and of the library's own; `end`: flags of its second step, which makes it of objects."""
    (folder / "main.c").write_text(text, encoding="utf-8")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-O1", *flags[:2]]
    words = [*compiler, "-std=c11", "-ffp-contract=off", "-D_DEFAULT_SOURCE", *flags[2:], "-c"]
    objects = []
    for source in (folder / "main.c", SOURCES / "processor.c"):
        objects.append(str(folder / f"{source.stem}.o"))
        subprocess.run([*words, "-o", objects[-1], str(source)], check=True)
    subprocess.run([*compiler, *end, "-o", str(folder / "asked"), *objects], check=True)
    return str(folder / "asked")


def said(emulator: str, processor: str, program: str) -> list[str]:
    words = [emulator, "-cpu", processor, program, *CPU_VARIANTS]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


@NEEDS_QEMU
@pytest.mark.skipif(sys.platform != "linux", reason="a program of Linux, with this machine's C library")
def test_an_x86_processor_runs_the_variants_that_it_has_instructions_for(tmp_path: Path) -> None:
    flags = ("-target", "x86_64-linux-gnu.2.17", '-DNAME="x86"')
    asked = compiled(tmp_path, PROGRAM, flags)
    answers = {cpu: said("qemu-x86_64", cpu, asked)[1:] for cpu in ("core2duo", "Nehalem", "Haswell")}
    assert answers == {"core2duo": [], "Nehalem": ["portable"], "Haswell": ["avx2", "portable"]}


@NEEDS_QEMU
def test_an_aarch64_runs_the_variants_that_it_has_instructions_for(tmp_path: Path) -> None:
    """In a program that needs nothing of a system: for another processor the compiler would first make a C library."""
    (dotprod,) = (variant for variant in VARIANTS["aarch64"] if variant.name == "dotprod")
    flags = ("-target", "aarch64-linux-musl", *dotprod.zig, f'-DNAME="{dotprod.name}"')
    asked = compiled(tmp_path, BARE, flags, "-static", "-nostdlib")
    assert said("qemu-aarch64", "cortex-a76", asked) == ["dotprod", "dotprod", "portable"]
    assert said("qemu-aarch64", "cortex-a53", asked) == ["dotprod", "portable"]
