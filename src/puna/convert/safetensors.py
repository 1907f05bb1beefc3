"""Safetensors: the tensors of a directory's files, mapped into memory and read without trust.

A file is a length (eight bytes), a JSON object of names, types, shapes and offsets, and the numbers. It holds no code.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.errors import ModelFileError, Unsupported

MAX_HEADER_BYTES = 100 * 1024 * 1024
MAX_DIMENSIONS = 4

_TYPES: Mapping[str, tuple[str, int]] = {
    "F64": ("<f8", 8), "F32": ("<f4", 4), "F16": ("<f2", 2), "BF16": ("<u2", 2),
    "I64": ("<i8", 8), "I32": ("<i4", 4), "I16": ("<i2", 2), "I8": ("i1", 1), "U8": ("u1", 1), "BOOL": ("?", 1),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """`shape` as in Python: the longest stride first. `type`: its name in the file, 'F32', 'BF16' …"""

    name: str
    shape: tuple[int, ...]
    type: str
    _data: NDArray[np.uint8]

    def numbers(self) -> NDArray[np.float32]:
        """All of it in 32 bits."""
        raw = self._data.view(_TYPES[self.type][0])
        if self.type == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32).reshape(self.shape)
        return raw.astype(np.float32).reshape(self.shape)


def read_directory(directory: Path) -> dict[str, Tensor]:
    """All tensors of all files, by name. ModelFileError: a file is damaged, or a name stands in two of them."""
    found: dict[str, Tensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        for tensor in _read(path):
            if tensor.name in found:
                raise ModelFileError(f"{path.name}: tensor {tensor.name!r} is in another file too")
            found[tensor.name] = tensor
    return found


def _read(path: Path) -> list[Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise ModelFileError(f"{path.name}: not a safetensors file")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{path.name}: not a safetensors file") from error
    if not isinstance(header, dict):
        raise ModelFileError(f"{path.name}: not a safetensors file")
    room = size - 8 - length
    data = np.memmap(path, np.uint8, mode="r", offset=8 + length) if room else np.empty(0, np.uint8)
    return [_tensor(path.name, name, told, data) for name, told in header.items() if name != "__metadata__"]


def _tensor(file: str, name: str, told: object, data: NDArray[np.uint8]) -> Tensor:
    told = told if isinstance(told, dict) else {}
    kind, shape, offsets = told.get("dtype"), told.get("shape"), told.get("data_offsets")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise Unsupported(f"{file}: tensor {name!r} is of the type {kind}, which cannot be converted", param="files")
    sides, place = _counts(shape), _counts(offsets)
    if sides is None or len(sides) > MAX_DIMENSIONS or place is None or len(place) != 2:
        raise ModelFileError(f"{file}: tensor {name!r} has no shape, or no place")
    begin, end = place
    if not begin <= end <= data.size or end - begin != math.prod(sides) * _TYPES[kind][1]:
        raise ModelFileError(f"{file}: tensor {name!r} does not lie in the file as it says")
    return Tensor(name, sides, kind, data[begin:end])


def _counts(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    found = tuple(item for item in value if isinstance(item, int) and not isinstance(item, bool) and item >= 0)
    return found if len(found) == len(value) else None
