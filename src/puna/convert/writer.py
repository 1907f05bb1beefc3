"""Writes a GGUF file: metadata, then tensors one after the other, each made when it is its turn."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from puna.model.ggml import TensorType
from puna.model.gguf import DEFAULT_ALIGNMENT, MAGIC
from puna.model.metadata import ValueType

MetadataEntry: TypeAlias = "bool | int | float | str | Sequence[int] | Sequence[float] | Sequence[str]"
"""Whole numbers are written without a sign, in lists with one."""


@dataclass(frozen=True, slots=True)
class Made:
    """A tensor to be written. `shape` as in Python. `numbers` gives them in 32 bits, when asked for."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    numbers: Callable[[], NDArray[np.float32]]

    @property
    def size(self) -> int:
        return self.type.bytes_of(int(np.prod(self.shape, dtype=np.int64)))


def write(
    path: Path, metadata: Mapping[str, MetadataEntry], tensors: Sequence[Made], done: Callable[[int, int], None]
) -> None:
    """`done` is told the bytes written so far, of all."""
    infos, offset = bytearray(), 0
    for tensor in tensors:
        infos += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
        infos += struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape))
        infos += struct.pack("<IQ", tensor.type.value, offset)
        offset += tensor.size + -tensor.size % DEFAULT_ALIGNMENT
    with path.open("wb") as file:
        file.write(MAGIC + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, value in metadata.items():
            file.write(_text(key) + _typed(value))
        file.write(infos)
        file.write(bytes(-file.tell() % DEFAULT_ALIGNMENT))
        written = 0
        for tensor in tensors:
            data = _packed(tensor.numbers(), tensor.type)
            file.write(data)
            file.write(bytes(-len(data) % DEFAULT_ALIGNMENT))
            written += len(data) + -len(data) % DEFAULT_ALIGNMENT
            done(written, offset)


def _packed(numbers: NDArray[np.float32], kind: TensorType) -> bytes:
    match kind:
        case TensorType.F16:
            return numbers.astype(np.float16).tobytes()
        case TensorType.BF16:
            bits = numbers.view(np.uint32)
            rounded = bits + 0x7FFF + ((bits >> 16) & 1)
            return (
                np.where(np.isnan(numbers), bits | 0x400000, rounded)
                .astype(np.uint32)
                .__rshift__(16)
                .astype(np.uint16)
                .tobytes()
            )
        case _:
            assert kind is TensorType.F32
            return numbers.tobytes()


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


def _typed(value: MetadataEntry) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", ValueType.BOOL.value, value)
        case int():
            return struct.pack("<II", ValueType.UINT32.value, value)
        case float():
            return struct.pack("<If", ValueType.FLOAT32.value, value)
        case str():
            return struct.pack("<I", ValueType.STRING.value) + _text(value)
        case _:
            return struct.pack("<I", ValueType.ARRAY.value) + _array(value)


def _array(values: Sequence[int] | Sequence[float] | Sequence[str]) -> bytes:
    if all(isinstance(item, str) for item in values):
        head = struct.pack("<IQ", ValueType.STRING.value, len(values))
        return head + b"".join(_text(str(item)) for item in values)
    if all(isinstance(item, int) for item in values):
        return struct.pack(f"<IQ{len(values)}i", ValueType.INT32.value, len(values), *values)
    return struct.pack(f"<IQ{len(values)}f", ValueType.FLOAT32.value, len(values), *values)
