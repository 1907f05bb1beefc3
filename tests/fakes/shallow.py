"""A real model with its first layers alone, for what does not depend on what is said.

It has the whole one's vocabulary, template, widths and types, so that it meets the same code of the engines with the
same shapes; what it writes has no sense. It takes a small part of the time: with llama.cpp a prompt a sixth.
"""

from __future__ import annotations

import re
from pathlib import Path

from fakes.gguf_files import Tensor, write_gguf
from puna.model.gguf import read_header

LAYERS = 4

_LAYER = re.compile(r"blk\.([0-9]+)\.")


def write_shallow(whole: Path, path: Path, *, layers: int = LAYERS) -> Path:
    """The model of the file `whole` with no more than its first `layers`, byte for byte as they are there."""
    header = read_header(whole, arrays=True)
    data = whole.read_bytes()
    tensors = [
        Tensor(info.name, info.shape, info.type, data[info.offset : info.offset + info.size])
        for info in header.tensors
        if (layer := _LAYER.match(info.name)) is None or int(layer[1]) < layers
    ]
    metadata = {key: list(value) if isinstance(value, tuple) else value for key, value in header.metadata.items()}
    del metadata["general.architecture"]
    metadata[f"{header.architecture}.block_count"] = layers
    return write_gguf(path, architecture=header.architecture, metadata=metadata, tensors=tensors)
