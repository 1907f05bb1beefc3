"""Packing: tensors of a file into the tiles that the native library multiplies with, on all threads."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu.memory import room
from puna.engine.cpu.structures import MatrixStruct
from puna.errors import LoadFailed, ModelFileError
from puna.model.ggml import TensorType

TILE = 16
"""Rows of a matrix that lie together."""

GROUP = 32
"""Weights of a row that lie together; unpacked rows are filled up to whole groups."""

_AT_ONCE = 1 << 21
"""Weights of one piece of work, about: a millisecond's."""

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Order = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A matrix [outputs][k] as a file keeps it, rows one after another.

    `order`: the row of `data` that each output is, None: as they lie. `bias`: one an output, in the outputs' order.
    `scale` is multiplied into weights and bias.
    """

    name: str
    type: TensorType
    data: Bytes
    outputs: int
    k: int
    order: Order | None = None
    bias: Floats | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Packed:
    """Matrices in the order of their sources. They point into `memory`, which has to outlive them."""

    matrices: Sequence[MatrixStruct]
    memory: tuple[object, ...]


def floats(library: ctypes.CDLL, name: str, kind: TensorType, data: Bytes, rows: int, k: int) -> Floats:
    """The numbers of a tensor, [rows][k]. LoadFailed for a type that is not known, ModelFileError for no numbers."""
    padded = np.empty((rows, k + -k % GROUP), np.float32)
    fault = library.puna_unpack(kind.value, data.ctypes.data, data.nbytes, rows, k, padded.ctypes.data)
    if fault:
        raise LoadFailed(f"the cpu engine cannot unpack '{name}', {rows} rows of {k} in {kind.name} ({fault})")
    numbers = np.ascontiguousarray(padded[:, :k])
    if not np.isfinite(numbers).all():
        raise ModelFileError(f"the model file's tensor '{name}' holds something else than numbers")
    return numbers


def pack(library: ctypes.CDLL, sources: Sequence[Unpacked], *, threads: int) -> Packed:
    """All of them, into one piece of memory. LoadFailed where that cannot be, or there is not so much memory."""
    sizes = [library.puna_packed_bytes(source.type.value, source.outputs, source.k) for source in sources]
    for source, size in zip(sources, sizes, strict=True):
        if size < 0:
            raise LoadFailed(
                f"the cpu engine cannot pack '{source.name}', {source.outputs} rows of {source.k} in {source.type.name}"
            )
    try:
        weights = room(sum(sizes))
        biases = [None if source.bias is None else _padded(source.bias * source.scale) for source in sources]
    except MemoryError as error:
        raise LoadFailed(f"there is no memory for {sum(sizes) >> 20} MiB of weights") from error
    places = np.cumsum([0, *sizes])
    work: list[tuple[Unpacked, Bytes, int, int]] = []
    for source, start, end in zip(sources, places, places[1:], strict=False):
        tiles = -(-source.outputs // TILE)
        step = max(1, _AT_ONCE // (TILE * source.k))
        target = weights[start:end]
        work += [(source, target, first, min(first + step, tiles)) for first in range(0, tiles, step)]
    with ThreadPoolExecutor(threads, "packing") as pool:
        for source, fault in pool.map(lambda piece: (piece[0], _pack_piece(library, *piece)), work):
            if fault:
                raise LoadFailed(f"the cpu engine cannot pack '{source.name}' ({fault})")
    matrices = [
        MatrixStruct(
            data=weights.ctypes.data + int(start),
            bias=None if bias is None else bias.ctypes.data,
            bytes=size,
            format=library.puna_format(source.type.value),
            outputs=source.outputs,
            k=source.k,
        )
        for source, start, size, bias in zip(sources, places, sizes, biases, strict=False)
    ]
    return Packed(matrices, (weights, biases))


def _pack_piece(library: ctypes.CDLL, source: Unpacked, target: Bytes, first: int, end: int) -> int:
    """Tiles `first` … `end`-1 of one matrix. Gives the library's answer, 0 if all is well."""
    order = source.order
    fault: int = library.puna_pack(
        source.type.value,
        source.data.ctypes.data,
        source.data.nbytes,
        source.outputs,
        source.k,
        None if order is None else order.ctypes.data,
        source.scale,
        target.ctypes.data,
        target.nbytes,
        first,
        end,
    )
    return fault


def _padded(bias: Floats) -> Floats:
    """With zeros to whole tiles."""
    return np.pad(bias, (0, -len(bias) % TILE)).astype(np.float32)
