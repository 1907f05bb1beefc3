"""Unpacked: a model's weights as the graph takes them, in one file beside the store that is mapped into memory.

The file is load cache and memory saver in one: the graph's constants lie in it, so the system may drop and re-read
their pages. Its name is made from what the weights are, how they are unpacked and by which version. It is written under
another name and moved into place, its sums are checked whenever it is opened, and it is safe to delete at any time.
Where it cannot be written the arrays stay in memory.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu import weights
from puna.engine.cpu.reader import Tensors
from puna.model.gguf import Header, TensorInfo

VERSION = 1
"""Of the arrays and of the file. Raise it whenever either changes."""

LIMIT = 32 << 30
"""Bytes that all files of unpacked weights in one directory may take; the least lately used go first."""

ElementType = Literal["u4", "i4", "u8", "i8", "f16", "bf16", "f32"]

_MAGIC = b"PUNAUNPK"
_FOOTER = struct.Struct("<QQI8s")
_ALIGNMENT = 4096
_SUFFIX = ".unpacked"


@dataclass(frozen=True, slots=True)
class Linear:
    """The matrix of a projection: [rows, groups, size] integers in `matrix`, four-bit ones two a byte, low half first.

    value = (integer - zero) * scale + rest, group by group; `zeros` are integers, `rests` what they leave.
    `scales` None: `matrix` [rows, columns] holds plain numbers (bf16 as its bits).
    """

    type: ElementType
    shape: tuple[int, ...]
    matrix: NDArray[np.generic]
    scales: NDArray[np.generic] | None = None
    zeros: NDArray[np.generic] | None = None
    rests: NDArray[np.generic] | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """Tensors that are multiplied with the same input and become one matrix, their rows one after another."""

    tensors: tuple[TensorInfo, ...]

    @property
    def name(self) -> str:
        return self.tensors[0].name


_TOGETHER = (("attn_q.weight", "attn_k.weight", "attn_v.weight"), ("ffn_gate.weight", "ffn_up.weight"))
_ALONE = ("attn_qkv.weight", "attn_output.weight", "ffn_down.weight")


def bundles(header: Header) -> tuple[Bundle, ...]:
    """All projections of a model. Neighbours of one type are put together; a tied head is a projection too."""
    tensors = {tensor.name: tensor for tensor in header.tensors}
    found: list[Bundle] = []
    for layer in range(header.block_count or 0):
        for suffixes in (*_TOGETHER, *((alone,) for alone in _ALONE)):
            run: list[TensorInfo] = []
            for tensor in (tensors.get(f"blk.{layer}.{suffix}") for suffix in suffixes):
                if tensor is None:
                    continue
                if run and run[-1].type is not tensor.type:
                    found.append(Bundle(tuple(run)))
                    run = []
                run.append(tensor)
            if run:
                found.append(Bundle(tuple(run)))
    head = tensors.get("output.weight") or tensors.get("token_embd.weight")
    return (*found, Bundle((head,))) if head is not None else tuple(found)


RowOrder = Callable[[str], "NDArray[np.intp] | None"]
"""The order in which a tensor's rows are taken; None: as they are."""


def unpack(bundle: Bundle, tensors: Tensors, order: RowOrder, *, exact: bool) -> Linear:
    """One matrix of a bundle. Unless `exact`, groups of 16 become bytes in groups of 32: faster, a little lost."""
    kind = bundle.tensors[0].type.name
    parts: list[NDArray[np.uint8]] = []
    for tensor in bundle.tensors:
        rows, taken = tensors.rows(tensor.name), order(tensor.name)
        parts.append(rows if taken is None else rows[taken])
    data = np.concatenate(parts) if len(parts) > 1 else parts[0]
    if kind in weights.DENSE:
        return _dense(kind, data)
    quantised = weights.unpack(kind, data)
    if not exact and quantised.integers.shape[-1] < 32:
        quantised = weights.in_bytes(quantised, 32)
    return linear(quantised)


def _dense(kind: str, data: NDArray[np.uint8]) -> Linear:
    data = np.ascontiguousarray(data)
    if kind == "F32":
        return Linear("f32", (data.shape[0], data.shape[1] // 4), data.view(np.float32))
    shape = (data.shape[0], data.shape[1] // 2)
    return Linear("f16", shape, data.view(np.float16)) if kind == "F16" else Linear("bf16", shape, data.view(np.uint16))


def linear(quantised: weights.Quantised) -> Linear:
    """As the graph takes it."""
    integers, scales, offsets = quantised.integers, quantised.scales, quantised.offsets
    matrix = _pairs(integers) if quantised.bits == 4 else np.ascontiguousarray(integers)
    signed = integers.dtype == np.int8
    type_: ElementType = ("i4" if signed else "u4") if quantised.bits == 4 else ("i8" if signed else "u8")
    if offsets is None:
        return Linear(type_, integers.shape, matrix, scales)
    # The runtime is fast with integer zero points only: the nearest, and what it leaves as a thin matrix of its own.
    zeros = np.zeros(offsets.shape, np.float32)
    np.divide(-offsets, scales, out=zeros, where=scales != 0)
    zeros = np.clip(np.rint(zeros), 0, 15 if quantised.bits == 4 else 255)
    return Linear(type_, integers.shape, matrix, scales, zeros.astype(np.uint8), offsets + zeros * scales)


def _pairs(integers: weights.Integers) -> NDArray[np.uint8]:
    """Two four-bit integers a byte, the first in the low half."""
    halves = integers.view(np.uint8)
    pairs: NDArray[np.uint8] = halves[..., 1::2] << np.uint8(4)
    pairs |= halves[..., 0::2] & np.uint8(15)
    return pairs


# ------------------------------------------------------------------------------------------------------------ files


def cache_key(path: Path, header: Header, *, exact: bool, engine: str) -> str:
    """Changes with the file (its name, size, time and every tensor's place), with `exact` and with the versions."""
    status = path.stat()
    facts = [VERSION, engine, exact, path.resolve().name, status.st_size, status.st_mtime_ns]
    facts += [(tensor.name, tensor.shape, tensor.type.name, tensor.offset) for tensor in header.tensors]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def load(
    directory: Path | None, key: str, wanted: Sequence[Bundle], make: Callable[[Bundle], Linear], *, threads: int
) -> dict[str, Linear]:
    """Every bundle's matrix by its name: mapped from the file of this `key`, which is written first if it is not there.

    `make` is called from several threads. Without a `directory` that can be written the arrays stay in memory.
    """
    if directory is not None:
        path = directory / f"{key}{_SUFFIX}"
        found = read(path, threads=threads)
        if found is None:
            try:
                write(path, wanted, make, threads=threads)
            except OSError:
                return _in_memory(wanted, make, threads)
            found = read(path, threads=threads)
            prune(directory, keep=path, limit=LIMIT)
        if found is not None and all(bundle.name in found for bundle in wanted):
            return found
    return _in_memory(wanted, make, threads)


def _in_memory(wanted: Iterable[Bundle], make: Callable[[Bundle], Linear], threads: int) -> dict[str, Linear]:
    with ThreadPoolExecutor(threads) as pool:
        return {bundle.name: linear for bundle, linear in zip(wanted, pool.map(make, wanted), strict=True)}


def write(path: Path, wanted: Sequence[Bundle], make: Callable[[Bundle], Linear], *, threads: int) -> None:
    """Unpack all and put the file in place. OSError when it cannot be, or when it would nearly fill the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = sum(tensor.elements for bundle in wanted for tensor in bundle.tensors) * 2
    if shutil.disk_usage(path.parent).free < 2 * size:
        raise OSError(f"not enough room for unpacked weights in {path.parent}")
    handle, name = tempfile.mkstemp(suffix=".part", prefix=path.stem[:16], dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            _Writer(file).write_all(wanted, make, threads)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)  # noqa: PTH105 - `name` is mkstemp's text
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class _Writer:
    """Lays arrays one after another and ends the file with their index."""

    def __init__(self, file: BufferedWriter) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._index: dict[str, dict[str, object]] = {}

    def write_all(self, wanted: Sequence[Bundle], make: Callable[[Bundle], Linear], threads: int) -> None:
        def one(bundle: Bundle) -> None:
            self._add(bundle.name, make(bundle))

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(one, wanted):
                pass
        index = json.dumps(self._index).encode()
        start = self._file.tell()
        self._file.write(index)
        self._file.write(_FOOTER.pack(start, len(index), zlib.crc32(index), _MAGIC))

    def _add(self, name: str, linear: Linear) -> None:
        arrays = {part: np.ascontiguousarray(array) for part in _PARTS if (array := getattr(linear, part)) is not None}
        sums = {part: zlib.crc32(_bytes(array)) for part, array in arrays.items()}
        entry: dict[str, object] = {"type": linear.type, "shape": linear.shape}
        with self._lock:
            for part, array in arrays.items():
                self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
                entry[part] = [self._file.tell(), array.dtype.str, array.shape, sums[part]]
                self._file.write(_bytes(array))
            self._index[name] = entry


_PARTS = ("matrix", "scales", "zeros", "rests")


def _bytes(array: NDArray[np.generic]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def read(path: Path, *, threads: int) -> dict[str, Linear] | None:
    """The matrices of a file, mapped, all sums checked. None if there is none, or it is damaged: then it is removed."""
    try:
        file = np.memmap(path, np.uint8, mode="c")
    except (OSError, ValueError):
        return None
    try:
        linears = _mapped(file, threads)
    except _Damaged:
        del file
        path.unlink(missing_ok=True)
        return None
    os.utime(path)
    return linears


class _Damaged(Exception):
    """The file is not what its sums say."""


def _mapped(file: NDArray[np.uint8], threads: int) -> dict[str, Linear]:
    if file.size < _FOOTER.size:
        raise _Damaged
    start, length, total, magic = _FOOTER.unpack(file[-_FOOTER.size :].tobytes())
    index = file[start : start + length].tobytes()
    if magic != _MAGIC or zlib.crc32(index) != total:
        raise _Damaged
    entries: Mapping[str, Mapping[str, object]] = json.loads(index)

    def part(place: tuple[int, str, tuple[int, ...], int] | None) -> NDArray[np.generic] | None:
        if place is None:
            return None
        at, dtype, shape, total = place
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        data = file[at : at + size]
        if zlib.crc32(data.data) != total:
            raise _Damaged
        return data.view(dtype).reshape(shape)

    def linear(entry: Mapping[str, object]) -> Linear:
        parts = {name: part(entry.get(name)) for name in _PARTS}  # type: ignore[arg-type]
        return Linear(entry["type"], tuple(entry["shape"]), **parts)  # type: ignore[arg-type]

    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(entries, pool.map(linear, entries.values()), strict=True))


def let_go(linears: Mapping[str, Linear]) -> None:
    """Give back the memory of mapped matrices: what is looked at again comes from the file. Elsewhere nothing happens.

    The runtime computes with a copy in an order of its own, so after a first step the mapped pages only take room.
    """
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    maps = {id(found): found for linear in linears.values() if (found := _map_of(linear.matrix)) is not None}
    for found in maps.values():
        found.madvise(mmap.MADV_DONTNEED)


def _map_of(array: object) -> mmap.mmap | None:
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None


def prune(directory: Path, *, keep: Path, limit: int) -> None:
    """Remove the least lately used files until all together take at most `limit` bytes. `keep` stays."""
    files = [(path.stat(), path) for path in directory.glob(f"*{_SUFFIX}")]
    total = sum(status.st_size for status, _ in files)
    for status, path in sorted(files, key=lambda item: item[0].st_mtime_ns):
        if total <= limit:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            total -= status.st_size
