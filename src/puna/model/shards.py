"""Shards: one model in several GGUF files, as llama.cpp splits them. What belongs together, and one Header for all.

The first file has the metadata; every file says which of how many it is (`split.no`, `split.count`) and lists the
tensors that it holds. Pure, but for reading the headers that it is given paths of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from puna.errors import ModelFileError
from puna.model.gguf import Header, TensorInfo, read_header
from puna.model.soundness import Unsound, check_tensors

MOST_SHARDS = 1000

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.IGNORECASE)

File = TypeVar("File")


@dataclass(frozen=True, slots=True)
class ShardName:
    """What a file's name says: `<stem>-00002-of-00003.gguf` is `number` 2 of `count` 3."""

    stem: str
    number: int
    count: int

    @classmethod
    def parse(cls, filename: str) -> ShardName | None:
        """None for a name of another form, or of one file that is all."""
        match = _NAME.fullmatch(filename)
        if match is None:
            return None
        name = cls(match["stem"], int(match["number"]), int(match["count"]))
        return name if 1 <= name.number <= name.count and 1 < name.count <= MOST_SHARDS else None

    @property
    def all(self) -> tuple[str, ...]:
        """The names of all its files, in order."""
        return tuple(filename(self.stem, number, self.count) for number in range(1, self.count + 1))


def filename(stem: str, number: int, count: int) -> str:
    """As llama.cpp has it, which looks for the others beside the first by their names."""
    return f"{stem}-{number:05}-of-{count:05}.gguf"


def place(header: Header) -> tuple[int, int] | None:
    """Which of how many its file is, from 0; None: it is all there is. ModelFileError when it says what cannot be."""
    count = header.number("split.count") or 0
    if count <= 1:
        return None
    number = header.number("split.no") or 0
    if count > MOST_SHARDS or not 0 <= number < count:
        raise ModelFileError(f"the file says that it is shard {number + 1} of {count}")
    return number, count


@dataclass(frozen=True, slots=True)
class Whole(Generic[File]):
    """The files of one model, in order, and the Header of all: a tensor's `part` is the index of its file."""

    files: tuple[File, ...]
    header: Header


def together(files: Sequence[tuple[File, Header]], stem: str = "model") -> Whole[File]:
    """All shards of a model, given in any order. `stem`: what its files are called, to name those that are missing.

    A file that is no shard stands alone. ModelFileError: a shard is missing or there twice, or a file is not of them.
    """
    if len(files) == 1 and place(files[0][1]) is None:
        ((file, header),) = files
        return Whole((file,), header)
    found: dict[int, tuple[File, Header]] = {}
    counts: set[int] = set()
    for file, header in files:
        where = place(header)
        if where is None:
            raise ModelFileError(f"{len(files)} files with weights are given, and one of them is no shard of a model")
        number, count = where
        if number in found:
            raise ModelFileError(f"{filename(stem, number + 1, count)} is there twice")
        found[number] = (file, header)
        counts.add(count)
    if len(counts) != 1:
        raise ModelFileError(
            f"the files are shards of different models: of {' and of '.join(map(str, sorted(counts)))}"
        )
    (count,) = counts
    missing = [filename(stem, number + 1, count) for number in range(count) if number not in found]
    if missing:
        raise ModelFileError(f"the model is in {count} files, of which {len(missing)} are missing: {_some(missing)}")
    ordered = [found[number] for number in range(count)]
    return Whole(tuple(file for file, _ in ordered), _joined([header for _, header in ordered]))


def read_whole(paths: Sequence[Path], *, arrays: bool = False, name: str = "") -> Header:
    """The Header of a model's files, see `puna.model.gguf.read_header`."""
    if len(paths) == 1:
        return read_header(paths[0], arrays=arrays, name=name)
    return together([(path, read_header(path, arrays=arrays, name=name)) for path in paths]).header


def _joined(headers: Sequence[Header]) -> Header:
    first = headers[0]
    tensors: dict[str, TensorInfo] = {}
    for part, header in enumerate(headers):
        for tensor in header.tensors:
            if tensor.name in tensors:
                raise ModelFileError(f"tensor {tensor.name!r} is in two of the model's files")
            tensors[tensor.name] = replace(tensor, part=part)
    said = first.number("split.tensors.count")
    if said is not None and said != len(tensors):
        raise ModelFileError(f"the model's files hold {len(tensors)} tensors, and the first of them names {said}")
    try:
        check_tensors(first.architecture, first.metadata, {tensor.name: tensor.shape for tensor in tensors.values()})
    except Unsound as error:
        raise ModelFileError(str(error)) from error
    return replace(first, tensors=tuple(tensors.values()), size=sum(header.size for header in headers))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
