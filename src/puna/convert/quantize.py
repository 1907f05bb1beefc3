"""Quantise a GGUF file with llama.cpp's own program, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from puna.children import spawned
from puna.convert.launch import Report
from puna.engine.process import child_environment
from puna.errors import InvalidRequest, ModelFileError, Overloaded, Unsupported
from puna.model.gguf import Header
from puna.shortage import ends_first
from puna.standstill import LOCAL_SECONDS, Standstill
from puna.types import Progress

PROGRAM = "llama-quantize"
KINDS = ("F32", "F16", "BF16", "Q4_K_S", "Q4_K_M", "Q8_0")
"""Ollama's; 'Q4_K' is Q4_K_M."""
_FROM = frozenset({"F32", "F16", "BF16"})
_TOLD = 400
_LOOK = 0.2


def kind_of(text: str) -> str:
    """As KINDS has it. InvalidRequest for another one."""
    kind = {"Q4_K": "Q4_K_M"}.get(text.upper(), text.upper())
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise InvalidRequest(
            f"unsupported quantization type {text[:40]} - supported types are {known}", param="quantize"
        )
    return kind


def find_program() -> Path:
    """Unsupported where it is not on the PATH."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise Unsupported(
            f"quantizing takes llama.cpp's program {PROGRAM}, which is not on the server's PATH", param="quantize"
        )
    return Path(found)


def quantized(path: Path, header: Header, kind: str, scratch: Path, report: Report) -> Path | None:
    """The new file, in `scratch`; None: it is of that kind already. Blocking; `report` may raise to stop it."""
    if header.quantization == kind:
        return None
    if header.quantization not in _FROM:
        what = f"quantization is only supported for F16, BF16 and F32 models, this one is {header.quantization}"
        raise Unsupported(what, param="quantize")
    program, output = find_program(), scratch / f"{kind}.gguf"
    step = Progress(f"quantizing {header.quantization} model to {kind}")
    report(step)
    log = scratch / "quantize.log"
    with log.open("wb") as told:
        process = spawned(
            [str(program), str(path), str(output), kind],
            cwd=scratch,
            env=child_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
        )
    ends_first(process.pid)
    standstill = Standstill(process.pid, LOCAL_SECONDS)
    try:
        while _running(process):
            if standstill.over():
                raise Overloaded(f"the system did not let {PROGRAM} run for {LOCAL_SECONDS:g} s: try again")
            report(step)
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode or not output.is_file():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ModelFileError(f"{PROGRAM} failed: {lines[-1][:_TOLD] if lines else f'status {process.returncode}'}")
    return output


def _running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_LOOK)
    except subprocess.TimeoutExpired:
        return True
    return False
