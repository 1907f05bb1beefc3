"""Logits have the same bits on every machine.

`digest.txt` holds what tiny models of every type, with both caches and with experts, computed on x86-64 and, under an
emulator, on aarch64.

Whoever changes the arithmetic on purpose writes it anew, by `fakes/native_digest.c` linked with the library.
"""

from __future__ import annotations

import os
import subprocess
import sys
from ctypes import CDLL
from pathlib import Path

import native_build
import pytest

SOURCE = Path(__file__).parents[4] / "fakes" / "native_digest.c"
EXPECTED = Path(__file__).with_name("digest.txt").read_text(encoding="utf-8")
LIBRARY = "libpuna-digest.so"


@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="a program finds a library beside it in another way elsewhere")
def test_the_digest_of_all_machines(variants: dict[str, CDLL], tmp_path: Path) -> None:
    """The portable variant takes a minute, so it is asked only where there is no other."""
    names = [name for name in variants if name != "portable"] or ["portable"]
    places = {name: linked(name, tmp_path) for name in names}
    program = tmp_path / "digest"
    command = [
        *native_build.compiler().command, "-std=c11", "-O1", "-DPUNA_PORTABLE", "-I", str(native_build.SOURCES),
        str(SOURCE), "-L", str(places[names[0]]), f"-l:{LIBRARY}", "-lm", "-o", str(program),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    for name, place in places.items():
        found = {**os.environ, "LD_LIBRARY_PATH": str(place)}
        done = subprocess.run([str(program)], check=True, capture_output=True, text=True, env=found)
        assert done.stdout == EXPECTED, name


def linked(variant: str, directory: Path) -> Path:
    """A directory in which the variant has the name that the program asks for."""
    of = directory / variant
    of.mkdir()
    (of / LIBRARY).symlink_to(native_build.BUILT / f"{variant}.so")
    return of
