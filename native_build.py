"""Build the cpu engine's native library: compilers, targets, flags and variants. Needs Python and a compiler alone.

    python -m native_build library                              this machine's variants, by zig (pip install ziglang)
    python -m native_build library --compiler gcc --sanitize    the same by another compiler, with sanitizers
    python -m native_build wheels                               a wheel for each target (pip install hatchling ziglang)

A variant is the whole library for one set of instructions; `puna.engine.cpu.library` takes the best that the processor
runs. What is built lies in `native/built/` beside the sources, each library under its label: the variant's name, and
the compiler and `sanitized` where they are not the usual ones (`avx2`, `avx2-gcc-sanitized`). The record beside them
says what each was built from, so that nothing is built twice, or why nothing was.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from ctypes import CDLL
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "src" / "puna" / "engine" / "cpu" / "native"
BUILT = SOURCES / "built"
"""Where the libraries of a source tree lie; in a wheel they have the same place in the package."""

RECORD = "built.json"
TARGET_VARIABLE = "PUNA_BUILD_TARGET"
"""Names the target of a wheel that is not for this machine."""

_FLAGS = ("-std=c11", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra")
_SPEED = ("-O3", "-g0")
"""zig writes what debuggers read unless it is told not to, which takes a fifth of its time; linking drops it."""

_SANITIZE = ("-O1", "-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all")
"""Lines and functions are all that a report names; to follow variables too takes gcc as long as all the rest."""


class BuildFailed(Exception):
    """Why there is no library, in words for the person who installs or builds."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One set of instructions, in the words of zig, and in those that gcc and clang share.

    `everywhere`: an installation has it whatever the processor is that it is made on.
    """

    name: str
    zig: tuple[str, ...]
    gcc: tuple[str, ...]
    everywhere: bool = False


VARIANTS: Mapping[str, tuple[Variant, ...]] = {
    "x86_64": (
        Variant("portable", ("-mcpu=x86_64_v2",), ("-march=x86-64-v2",), everywhere=True),
        Variant("avx2", ("-mcpu=x86_64_v3",), ("-march=x86-64-v3",), everywhere=True),
        Variant("avxvnni", ("-mcpu=x86_64_v3+avxvnni",), ("-march=x86-64-v3", "-mavxvnni")),
        Variant(
            "avx512vnni",
            ("-mcpu=x86_64_v4+avx512vnni", "-mprefer-vector-width=512"),
            ("-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"),
        ),
    ),
    "aarch64": (
        Variant("portable", ("-mcpu=generic",), ("-march=armv8-a",), everywhere=True),
        Variant("dotprod", ("-mcpu=generic+dotprod+fullfp16",), ("-march=armv8.2-a+dotprod+fp16",), everywhere=True),
    ),
}
"""By processor, the better ones later. A variant's name is what its `puna_variant` answers."""


@dataclass(frozen=True, slots=True)
class Target:
    """A system on a processor. `triple`: zig's name of it, with the oldest system that the library runs on.

    `zig_linking`: what zig is told besides when it links.
    """

    processor: str
    triple: str
    suffix: str
    tag: str
    compiling: tuple[str, ...] = ()
    linking: tuple[str, ...] = ()
    zig_linking: tuple[str, ...] = ()

    @property
    def variants(self) -> tuple[Variant, ...]:
        return VARIANTS[self.processor]


_LINUX = (
    ("-fPIC", "-pthread", "-D_DEFAULT_SOURCE"),
    ("-pthread", "-lm"),
    # Without its own runtime, which it would compile first for eight seconds. That nothing is missing then is checked.
    ("-nostdlib", "-lc", "-Wl,-z,defs"),
)

TARGETS: Mapping[str, Target] = {
    "linux-x86_64": Target("x86_64", "x86_64-linux-gnu.2.17", ".so", "manylinux_2_17_x86_64", *_LINUX),
    "linux-aarch64": Target("aarch64", "aarch64-linux-gnu.2.17", ".so", "manylinux_2_17_aarch64", *_LINUX),
    "macos-arm64": Target("aarch64", "aarch64-macos.11.0", ".dylib", "macosx_11_0_arm64", ("-fPIC",)),
    "macos-x86_64": Target("x86_64", "x86_64-macos.11.0", ".dylib", "macosx_11_0_x86_64", ("-fPIC",)),
    "windows-x86_64": Target(
        "x86_64",
        "x86_64-windows-gnu",
        ".dll",
        "win_amd64",
        ("-DWIN32_LEAN_AND_MEAN",),
        ("-lapi-ms-win-core-synch-l1-2-0",),
    ),
}
"""What wheels are built for, by name."""

_SYSTEMS = {"linux": "linux", "darwin": "macos", "win32": "windows"}
_PROCESSORS = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "arm64"}


def machine_name() -> str:
    """The name of the target that this Python runs on. BuildFailed if there is none."""
    system = _SYSTEMS.get(sys.platform, sys.platform)
    processor = _PROCESSORS.get(platform.machine().lower(), platform.machine().lower())
    name = f"{system}-{processor}"
    if struct.calcsize("P") != 8:
        raise BuildFailed(f"there is no native library for a Python of {8 * struct.calcsize('P')} bits")
    if name not in TARGETS:
        raise BuildFailed(f"there is no native library for {name}, only for {', '.join(TARGETS)}")
    if system == "linux" and "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
        raise BuildFailed("there is no native library for a Linux with musl instead of glibc")
    return name


# ---------------------------------------------------------------------------------------------------------- compiling


@dataclass(frozen=True, slots=True)
class Compiler:
    """`name` goes into labels; `command` is what is run; `version` tells one release from another."""

    name: str
    command: tuple[str, ...]
    version: str

    @property
    def is_zig(self) -> bool:
        return self.name == "zig"


def compiler(name: str = "zig") -> Compiler:
    """zig, as pip installs it, or the system's: gcc or clang, or the path of one. BuildFailed if it is not here."""
    if name == "zig":
        try:
            return Compiler("zig", (sys.executable, "-m", "ziglang", "cc"), importlib.metadata.version("ziglang"))
        except importlib.metadata.PackageNotFoundError as error:
            raise BuildFailed("the compiler is not installed (pip install ziglang)") from error
    said = _run([name, "--version"])
    return Compiler("clang" if "clang" in said else "gcc", (name,), said.partition("\n")[0])


def label(variant: Variant, by: Compiler, *, sanitize: bool = False) -> str:
    """What a library is called: `avx2`, `avx2-gcc`, `avx2-gcc-sanitized`."""
    return "-".join([variant.name, *([] if by.is_zig else [by.name]), *(["sanitized"] if sanitize else [])])


@dataclass(frozen=True, slots=True)
class Work:
    """One library to build: its sources, the commands to compile each and to link all, digests of what goes in."""

    label: str
    sources: tuple[Path, ...]
    compiling: tuple[str, ...]
    linking: tuple[str, ...]
    digest: str


def plan(
    target: Target, by: Compiler, *, sanitize: bool = False, only: Iterable[str] = (), sources: Path = SOURCES
) -> list[Work]:
    """What is to be built of the C files in `sources`; `only`: the names of variants, all if empty."""
    names = {variant.name for variant in target.variants}
    if unknown := sorted(set(only) - names):
        raise BuildFailed(f"there is no variant {', '.join(unknown)}, only {', '.join(sorted(names))}")
    files = sorted(sources.glob("*.[ch]"))
    content = hashlib.sha256()
    for path in files:
        content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    work = []
    for variant in target.variants:
        if not only or variant.name in only:
            compiling, linking = _commands(target, variant, by, sanitize)
            # Not where the compiler lies: one Python may be called by several names, as `python` and `python3` are.
            parts = [by.name, by.version, *compiling[len(by.command) :], "", *linking[len(by.command) :]]
            how = hashlib.sha256("\0".join(parts).encode())
            c_files = tuple(path for path in files if path.suffix == ".c")
            name = label(variant, by, sanitize=sanitize)
            work.append(Work(name, c_files, compiling, linking, f"{content.hexdigest()} {how.hexdigest()}"))
    return work


def _commands(target: Target, variant: Variant, by: Compiler, sanitize: bool) -> tuple[tuple[str, ...], ...]:
    """Without the sources; without the objects and the output.

    zig links for its basic processor: where it needs its own runtime, it builds that for each set of instructions that
    it links for.
    """
    place = ("-target", target.triple) if by.is_zig else ()
    checks: tuple[str, ...] = ()
    if sanitize:
        # zig's clang has no runtime of AddressSanitizer; its undefined behaviour ends the process by a trap.
        checks = (
            ("-fsanitize=undefined", "-fsanitize-trap=undefined")
            if by.is_zig
            # What AddressSanitizer finds too; compiled in twice they take gcc a third of its time.
            else ("-fsanitize=address,undefined", "-fno-sanitize=null,object-size")
        )
    # gcc warns of wide vectors between functions; ours do not leave their library, which has one set of instructions.
    instructions = variant.zig if by.is_zig else (*variant.gcc, "-Wno-psabi")
    kind = _SANITIZE if sanitize else _SPEED
    compiling = (*by.command, "-c", *place, *instructions, *kind, *checks, *_FLAGS, *target.compiling)
    kept = checks if sanitize else ("-s",)
    runtime = target.zig_linking if by.is_zig else ()
    linking = (*by.command, "-shared", *place, *kept, *runtime, *target.linking)
    return compiling, linking


def build(
    work: Sequence[Work], target: Target, out: Path, *, environment: Mapping[str, str] | None = None
) -> list[str]:
    """Build in parallel what is not there yet; the labels of what was built. BuildFailed names what went wrong.

    Libraries that were built into `out` of other sources go: nobody is to take them for those of today.
    """
    out.mkdir(parents=True, exist_ok=True)
    sources = {each.digest.partition(" ")[0] for each in work}
    there = _digests(out)
    known = {name: digest for name, digest in there.items() if digest.partition(" ")[0] in sources}
    _remove(out, there.keys() - known.keys(), target)
    todo = [w for w in work if known.get(w.label) != w.digest or not (out / f"{w.label}{target.suffix}").is_file()]
    if not todo and known == there:
        return []  # and nothing is written: others may build, or look, at the same time
    with tempfile.TemporaryDirectory(dir=out, prefix=".building-") as name:

        def compile_(work: Work, source: Path) -> str:
            made = Path(name) / f"{work.label}-{source.stem}.o"
            _run([*work.compiling, "-o", str(made), str(source)], environment)
            return str(made)

        def link(work: Work) -> None:
            made = Path(name) / f"{work.label}{target.suffix}"
            objects = [compiled[work.label, source].result() for source in work.sources]
            _run([*work.linking, "-o", str(made), *objects], environment)
            _check_exports(made, work.sources)
            made.replace(out / made.name)  # at once: others may be reading it, or building the same

        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            # A source for all variants, then the next: the long ones of the last variant are not all that is left then.
            in_turn = sorted(((each, source) for each in todo for source in each.sources), key=lambda both: both[1])
            compiled = {(each.label, source): pool.submit(compile_, each, source) for each, source in in_turn}
            _all_done(pool, compiled.values())
            _all_done(pool, [pool.submit(link, each) for each in todo])
    # What others have built meanwhile stays.
    known = {name: digest for name, digest in _digests(out).items() if digest.partition(" ")[0] in sources}
    write_record(out, None, {**known, **{each.label: each.digest for each in todo}})
    return [w.label for w in todo]


def _all_done(pool: ThreadPoolExecutor, work: Iterable[Future[Any]]) -> None:
    """Wait for it. The first failure is raised at once, and what has not begun is left."""
    for done in as_completed(work):
        if done.exception() is not None:
            pool.shutdown(cancel_futures=True)
            done.result()


_EXPORTED = re.compile(rb"^EXPORT\b[^;{]*?\b(puna_\w+)\(", re.MULTILINE)


def _check_exports(library: Path, sources: Iterable[Path]) -> None:
    """BuildFailed unless a stripped library names every function that its sources mark: a loader would miss it later,
    and on a machine that this one may not be.
    """
    names = {name for path in sources for name in _EXPORTED.findall(path.read_bytes())}
    content = library.read_bytes()
    if missing := sorted(name.decode() for name in names if name not in content):
        raise BuildFailed(f"{library.name} does not export {', '.join(missing)}")


def needed(target: Target, by: Compiler, room: Path, environment: Mapping[str, str] | None = None) -> list[str]:
    """Names of the variants that an installation on this machine has: the best for its processor, and those for others.

    The source that the loader asks is asked here too, built alone into `room`. BuildFailed if it cannot be.
    """
    (work,) = plan(target, by, only=["portable"])
    made = [room / "processor.o", room / f"processor{target.suffix}"]
    _run([*work.compiling, "-o", str(made[0]), str(SOURCES / "processor.c")], environment)
    _run([*work.linking, "-o", str(made[1]), str(made[0])], environment)
    try:
        runs = CDLL(str(made[1])).puna_supported
    except (OSError, AttributeError) as error:
        raise BuildFailed(f"what was compiled cannot be loaded: {error}") from error
    best = [variant.name for variant in target.variants if runs(variant.name.encode())][-1:]
    return [variant.name for variant in target.variants if variant.everywhere or variant.name in best]


def _remove(out: Path, labels: Iterable[str], target: Target) -> None:
    for name in labels:
        (out / f"{name}{target.suffix}").unlink(missing_ok=True)


def _run(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    env = {**os.environ, **(environment or {})}
    try:
        ended = subprocess.run(words, capture_output=True, text=True, errors="replace", env=env, check=False)
    except OSError as error:
        raise BuildFailed(f"the compiler {words[0]} cannot be run: {error.strerror or error}") from error
    if ended.returncode != 0:
        said = ended.stderr.strip() or ended.stdout.strip() or f"status {ended.returncode}"
        print(said, file=sys.stderr)  # noqa: T201
        lines = said.splitlines()
        raise BuildFailed(f"the compiler failed: {next((line for line in lines if 'error:' in line), lines[-1])}")
    if ended.stderr.strip():
        print(ended.stderr.strip(), file=sys.stderr)  # noqa: T201
    return ended.stdout


# ------------------------------------------------------------------------------------------------------------- record


def write_record(out: Path, failure: str | None, digests: Mapping[str, str] | None = None) -> None:
    """Say beside the libraries what they were built from, or why there is none."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"failure": failure, "libraries": digests or {}}, indent=1, sort_keys=True)
    new = out / f"{RECORD}.{os.getpid()}"
    new.write_text(text + "\n", encoding="utf-8")
    new.replace(out / RECORD)


def _digests(out: Path) -> dict[str, str]:
    try:
        return dict(json.loads((out / RECORD).read_text(encoding="utf-8"))["libraries"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # nothing was built, or nothing that can be relied upon


def build_or_record(
    out: Path, target_name: str | None = None, *, by: str = "zig", every: bool = False, keep_cache: bool = False
) -> Target | None:
    """What an installation does: build what it needs, or write down why not, and return None.

    Libraries of an earlier build that could not be replaced are removed. `target_name`: this machine's if None; what is
    named must be built, else BuildFailed, and all its variants are. `every`: those of this machine too. `keep_cache`:
    leave what the compiler keeps, where it keeps it.
    """
    if target_name is not None and target_name not in TARGETS:
        raise BuildFailed(f"{TARGET_VARIABLE}={target_name}: expected one of {', '.join(TARGETS)}")
    target = None
    try:
        target = TARGETS[target_name or machine_name()]
        with tempfile.TemporaryDirectory(prefix="puna-build-", ignore_cleanup_errors=True) as cache:
            places = {} if keep_cache else {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
            using = compiler(by)
            only = [] if every or target_name is not None else needed(target, using, Path(cache), places)
            build(plan(target, using, only=only), target, out, environment=places)
    except (BuildFailed, OSError) as error:
        if target_name is not None:
            raise
        if target is not None:
            _remove(out, _digests(out), target)
        write_record(out, str(error))
        return None
    return target


# ------------------------------------------------------------------------------------------------------------ command


def _build_wheels(names: Sequence[str], out: Path) -> None:
    for name in names:
        words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
        ended = subprocess.run(words, cwd=ROOT, env={**os.environ, TARGET_VARIABLE: name}, check=False)
        if ended.returncode != 0:
            raise BuildFailed(f"no wheel for {name}: see above (pip install hatchling ziglang)")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m native_build", description="Build the native library.")
    commands = parser.add_subparsers(dest="command", required=True)
    library = commands.add_parser("library", help="into the source tree")
    library.add_argument("--compiler", default="zig", help="zig (default), gcc, clang, or the path of one of these")
    library.add_argument("--sanitize", action="store_true", help="with AddressSanitizer and UBSan (zig: UBSan alone)")
    library.add_argument(
        "--variant", action="append", default=[], help="only this one, or best: this processor's; may be repeated"
    )
    library.add_argument("--target", choices=sorted(TARGETS), help="another machine than this one (zig alone)")
    library.add_argument("--out", type=Path, help="where to; for this machine, the source tree if it is not said")
    wheels = commands.add_parser("wheels", help="a wheel for each target")
    wheels.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated")
    wheels.add_argument("--out", type=Path, default=ROOT / "dist")
    return parser.parse_args(arguments)


def _named(variant: str, target: Target, by: Compiler) -> str:
    if variant != "best":
        return variant
    with tempfile.TemporaryDirectory(prefix="puna-build-") as room:
        return needed(target, by, Path(room))[-1]


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _arguments(arguments)
    try:
        if asked.command == "wheels":
            _build_wheels(asked.target or list(TARGETS), asked.out.absolute())
            return 0
        if asked.target and not asked.out:
            raise BuildFailed("--target needs --out: the source tree holds this machine's libraries")
        target = TARGETS[asked.target or machine_name()]
        by = compiler(asked.compiler)
        work = plan(target, by, sanitize=asked.sanitize, only=[_named(each, target, by) for each in asked.variant])
        out = asked.out or BUILT
        new = build(work, target, out)
        for each in work:
            print(f"{'built' if each.label in new else 'there'} {out / each.label}{target.suffix}")  # noqa: T201
    except BuildFailed as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
