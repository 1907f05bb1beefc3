"""The tensors of a model's files, mapped into memory. Trusts the header, whose bounds are checked where it is read."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.errors import ModelFileError
from puna.model.gguf import Header, TensorInfo

Bytes = NDArray[np.uint8]


class Tensors:
    """By name. Bytes come from the mapped files and are not copied. `unread`: names that nobody has asked for yet."""

    def __init__(self, files: Sequence[Path], header: Header) -> None:
        self._infos = {tensor.name: tensor for tensor in header.tensors}
        self.unread = set(self._infos)
        self._maps = [_mapped(path) for path in files]
        self._files: list[Bytes] = [np.frombuffer(one, np.uint8) for one in self._maps]
        if sum(file.size for file in self._files) != header.size:
            raise ModelFileError(f"{files[0].name}: changed since its header was read")

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def info(self, name: str, *shape: int) -> TensorInfo:
        """What the header says of a tensor. ModelFileError if it is not there, or not of that `shape`, if one is given.

        The length of a row first, as ggml has it; ones at its end do not count.
        """
        info = self._infos.get(name)
        if info is None:
            raise ModelFileError(f"the model file has no tensor '{name}'")
        if shape and _significant(info.shape) != _significant(shape):
            raise ModelFileError(f"the model file's tensor '{name}' is {_words(info.shape)}, not {_words(shape)}")
        self.unread.discard(name)
        return info

    def bytes(self, name: str) -> Bytes:
        """All bytes of a tensor, as they lie in the file."""
        info = self.info(name)
        return self._files[info.part][info.offset : info.offset + info.size]

    def let_go(self) -> None:
        """What was read need no longer count as this process's memory. It is still there, and comes when it is read."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for one in self._maps:
                one.madvise(mmap.MADV_DONTNEED)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _significant(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
