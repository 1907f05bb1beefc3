"""The tensors of a GGUF file, mapped into memory. Trusts the header, whose bounds are checked where it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu import weights
from puna.errors import ModelFileError
from puna.model.gguf import Header, TensorInfo


class Tensors:
    """By name. Bytes come from the mapped file and are not copied."""

    def __init__(self, path: Path, header: Header) -> None:
        self._infos = {tensor.name: tensor for tensor in header.tensors}
        self._file = np.memmap(path, np.uint8, mode="r")
        if self._file.size != header.size:
            raise ModelFileError(f"{path.name}: changed since its header was read")

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def rows(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor, [rows, bytes of a row]. ModelFileError if it is not there."""
        info = self._of(name)
        count = info.elements // info.shape[0] if info.shape else 1
        return self._file[info.offset : info.offset + info.size].reshape(count, -1)

    def kind(self, name: str) -> str:
        """Its type's name."""
        return self._of(name).type.name

    def numbers(self, name: str) -> NDArray[np.float32]:
        """The numbers of a tensor, [rows, columns]."""
        return weights.values(self.kind(name), self.rows(name))

    def vector(self, name: str) -> NDArray[np.float32]:
        """The numbers of a tensor of one dimension."""
        return self.numbers(name).reshape(-1)

    def _of(self, name: str) -> TensorInfo:
        try:
            return self._infos[name]
        except KeyError as error:
            raise ModelFileError(f"the model file has no tensor '{name}'") from error
