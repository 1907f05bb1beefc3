"""The process that converts: `python -m puna.convert.child DIRECTORY OUTPUT NAME` a model, `… DIRECTORY OUTPUT
ARCHITECTURE HEADS HEADS_KV` an adapter for one. Its lines are JSON, the last one of an error. The server never imports
what it needs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from puna.convert.adapter import AdaptedBase, convert_adapter
from puna.convert.families import convert
from puna.convert.safetensors import read_directory
from puna.convert.writer import write
from puna.errors import PunaError


def main(arguments: list[str]) -> int:
    directory, output, name, *heads = Path(arguments[0]), Path(arguments[1]), *arguments[2:]
    try:
        read = read_directory(directory)
        if heads:
            metadata, tensors = convert_adapter(directory, read, AdaptedBase(name, *map(int, heads)))
        else:
            metadata, tensors = convert(directory, read, name)
        write(output, metadata, tensors, lambda done, total: _tell({"done": done, "total": total}))
    except PunaError as error:
        _tell({"error": error.message, "kind": type(error).__name__})
        return 1
    except OSError as error:
        _tell({"error": error.strerror or str(error), "kind": "StoreError"})
        return 1
    return 0


def _tell(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
