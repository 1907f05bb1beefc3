"""Build llama.cpp for this very processor, as a yardstick: its server, its batched bench and its quantiser.

    python bench/native_llama.py [--source DIR] [--programs llama-batched-bench,…] [--jobs 2]

Without `--source` the sources are those in the source package of `llama-cpp-python`, fetched with pip as configured.
With it they are a directory with llama.cpp or a relative of it (ik_llama.cpp) checked out. Built once and kept in
PUNA_BENCH_CACHE, or else in the user's cache; a second call finds what the first one built. Nothing of it is part of
Puna. Needs cmake, a C++ compiler, and ninja or make. Prints what was built, with what, and which instructions it uses,
as the built library itself says (`ggml_cpu_has_*`).
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"

PROGRAMS = ("llama-server", "llama-batched-bench", "llama-quantize")
PEERS_PROGRAMS = ("llama-batched-bench",)
"""Of a directory that is given, unless others are asked for: web pages that its server needs may be left out of it."""

OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_CXX_FLAGS": "-w",
    "GGML_IQK_FA_ALL_QUANTS": "OFF",
    "GGML_NATIVE": "ON",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_EXAMPLES": "ON",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_CURL": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
}
"""What cmake is told. All else, OpenMP and llamafile's products among it, stays as its authors set it.

Without GGML_IQK_FA_ALL_QUANTS ik_llama.cpp has attention for fewer types of cache, the one measured among them, and is
built sooner.
"""

INSTRUCTIONS = re.compile(r"\bint\s+(ggml_cpu_has_\w+)\s*\(void\)")


@dataclass(frozen=True, slots=True)
class Build:
    """Programs that were built: `programs` lie in `folder`, `said` is what is known of them."""

    folder: Path
    said: dict[str, object]

    def program(self, name: str) -> Path:
        """RuntimeError if it was not built."""
        found = next((path for path in self.folder.rglob(name) if path.is_file()), None)
        if found is None:
            raise RuntimeError(f"{name} is not among what was built in {self.folder}")
        return found


def cache() -> Path:
    folder = os.environ.get("PUNA_BENCH_CACHE")
    return Path(folder) if folder else platformdirs.user_cache_path("puna-bench")


def build(source: Path | None = None, programs: tuple[str, ...] | None = None, jobs: int = 2) -> Build:
    """What is asked for, built if it is not there yet. RuntimeError if it cannot be."""
    place = cache() / (f"llama-{VERSION}" if source is None else f"{source.resolve().name}-{identity(source)[:12]}")
    wanted = programs or (PROGRAMS if source is None else PEERS_PROGRAMS)
    record = place / "built.json"
    said = json.loads(record.read_text()) if record.exists() else {"programs": []}
    if not set(wanted) <= set(said["programs"]):
        sources = source.resolve() if source else packaged(place)
        compile_all(sources, place / "build", wanted, jobs)
        said = {
            "sources": f"{PACKAGE} {VERSION}" if source is None else f"{sources.name}, sha256 {identity(source)[:12]}",
            "programs": sorted({*said["programs"], *wanted}),
            "compiler": compiler(place / "build"),
            "options": [f"{name}={value}" for name, value in OPTIONS.items()],
            "processor": facts(sources, place / "build"),
        }
        record.write_text(json.dumps(said, indent=1))
    return Build(place / "build", said)


def identity(source: Path) -> str:
    """The digest of all C and C++ and cmake files but the one that a build writes among them."""
    digest = hashlib.sha256()
    kinds = {".c", ".cc", ".cpp", ".h", ".hpp", ".cmake", ".txt"}
    for path in sorted(
        path for path in source.rglob("*") if path.suffix in kinds and path.name != "build-info.cpp" and path.is_file()
    ):
        digest.update(f"{path.relative_to(source)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def packaged(place: Path) -> Path:
    """llama.cpp's sources out of the source package."""
    target = place / "source"
    if not target.exists():
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place) as folder:
            asked = ["download", "-q", "--no-deps", "--no-binary", PACKAGE, f"{PACKAGE}=={VERSION}", "-d", folder]
            run([sys.executable, "-m", "pip", *asked])
            with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
                archive.extractall(folder, filter="data")
            next(Path(folder).glob("*/vendor/llama.cpp")).rename(target)
    return target


def compile_all(sources: Path, folder: Path, programs: tuple[str, ...], jobs: int) -> None:
    server = "ON" if "llama-server" in programs else "OFF"
    settings = [f"-D{name}={value}" for name, value in {**OPTIONS, "LLAMA_BUILD_SERVER": server}.items()]
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    run(["cmake", "-S", str(sources), "-B", str(folder), *generator, *settings])
    run(["cmake", "--build", str(folder), "-j", str(jobs), "--target", *programs])


def run(command: list[str]) -> None:
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
        raise RuntimeError(f"failed: {' '.join(command)}")


def compiler(folder: Path) -> str:
    entries = dict(entry for entry in cache_entries(folder))
    path = entries["CMAKE_CXX_COMPILER"]
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def cache_entries(folder: Path) -> Iterator[tuple[str, str]]:
    """Names and values of cmake's cache."""
    for line in (folder / "CMakeCache.txt").read_text().splitlines():
        if match := re.fullmatch(r"(\w+):\w+=(.*)", line):
            yield match[1], match[2]


def facts(sources: Path, folder: Path) -> list[str]:
    """The instructions that the built library says it has. Its header names the questions."""
    headers = (sources / "ggml" / "include").glob("*.h")
    questions = {name for header in headers for name in INSTRUCTIONS.findall(header.read_text())}
    answers: set[str] = set()
    for path in folder.rglob("libggml*.so"):
        library = ctypes.CDLL(str(path))
        answers |= {name for name in questions if hasattr(library, name) and getattr(library, name)()}
    return sorted(name.removeprefix("ggml_cpu_has_") for name in answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="a directory with the sources, instead of the package's")
    parser.add_argument("--programs", help="what to build; default: " + ",".join(PROGRAMS))
    parser.add_argument("--jobs", type=int, default=2)
    said = parser.parse_args()
    programs = tuple(said.programs.split(",")) if said.programs else None
    try:
        built = build(said.source, programs, said.jobs)
    except RuntimeError as error:
        raise SystemExit(str(error)) from None
    for name, value in built.said.items():
        print(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    for name in programs or built.said["programs"]:  # type: ignore[attr-defined]
        print(built.program(name))


if __name__ == "__main__":
    main()
