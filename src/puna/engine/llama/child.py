"""The child process that hosts llama.cpp's server from the `xllamacpp` wheel. The only module that imports it.

Run as `python -m puna.engine.llama.child '<JSON object>'`: names of `CommonParams`, and their values, as
`puna.engine.llama.options.wheel` writes them. It says on stderr why it ends.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from puna.engine import leash

_NO_REASON = "Failed to init server"
_LAST_WORDS_SECONDS = 0.5


def main(arguments: str) -> None:
    """Serve until stdin ends. Native code holds the interpreter while it loads, so the kernel's leash comes first."""
    leash.ignore_interrupt()
    leash.follow_parent(leash.parent())
    watcher = leash.end_with_stdin()

    import xllamacpp

    parameters = xllamacpp.CommonParams()
    for name, value in json.loads(arguments).items():
        _set(xllamacpp, parameters, name, value)
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        # The reason is in the engine's log, which a thread of its own writes out in an orderly end, in pieces: a line
        # from here could come into the middle of it, and would be taken for the reason. On a busy machine that thread
        # needs a moment.
        time.sleep(_LAST_WORDS_SECONDS)
        sys.exit(1 if str(error).startswith(_NO_REASON) else str(error))
    watcher.join()
    del server


def _set(xllamacpp: Any, parameters: Any, name: str, value: Any) -> None:
    """One parameter: plain, of a part ('model.path'), or of an enumeration."""
    part, _, field = name.rpartition(".")
    target = getattr(parameters, part) if part else parameters
    match name:
        case "flash_attn_type":
            value = xllamacpp.llama_flash_attn_type(value)
        case "load_mode":
            value = xllamacpp.llama_load_mode(value)
        case "pooling_type":
            value = xllamacpp.llama_pooling_type(value)
        case "cache_type_k" | "cache_type_v":
            value = xllamacpp.ggml_type(value)
        case "lora_adapters":
            value = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in value]
    setattr(target, field, value)


if __name__ == "__main__":
    main(sys.argv[1])
