"""Blame: whose fault it is that llama.cpp loaded no model: the file's, or the machine's and ours. Pure."""

from __future__ import annotations

import re

from puna.errors import LoadDied, LoadFailed, ModelFileError

_OF_THE_FILE = re.compile(
    r"(?:error loading model: |failed to apply lora adapter: |gguf_init_from_\w+: |(?=failed to load CLIP model)"
    r"|(?=mismatch between text model)"
    r"|(?=(?:llama-(?:model|vocab|hparams|arch)[\w-]*|gguf|clip|ggml)\.c(?:pp)?:\d+: ))(?P<told>.+)",
    re.IGNORECASE,
)
"""What it says when it can make nothing of a file that it could read: words, or an assertion about its numbers."""

_OF_THE_MACHINE = re.compile(
    r"\b(?:un|m|re)?alloc|out of memory|failed to alloc|buffer|mmap|mlock|failed to (?:open|read)", re.IGNORECASE
)


def not_loaded(cause: str) -> LoadFailed | ModelFileError:
    """The error of a load that ended so. `cause`: how the process ended, and what it said."""
    found = _OF_THE_FILE.search(cause)
    if found is None or _OF_THE_MACHINE.search(found["told"]):
        return LoadDied(f"the model could not be loaded: {cause}")
    return ModelFileError(f"the model could not be loaded: llama.cpp says of its file: {found['told']}", param="model")
