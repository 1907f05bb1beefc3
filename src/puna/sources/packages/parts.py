"""Models in packages: which files of which wheels make one, whole or in parts that are joined. Pure.

Two ways to carry a model are known. Puna's own (`puna package`): the manifest as it was, in PACKAGED, and each blob by
its digest. Anybody's: a GGUF file, perhaps a projector beside it. In both a file may be cut into parts, `NAME.part00`
and on, in the package itself and in packages that it names as parts of it: PROJECT-part1, PROJECT-part2 …
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from puna.errors import SourceError, SourceNotFound, Unsupported
from puna.model.digest import Digest
from puna.model.manifest import Layer
from puna.sources.packages.wheel import Member

MOST_PARTS = 1000
"""Packages of one model."""

_PART = re.compile(r"(?P<file>.+?)[._-]part[._-]?(?P<number>[0-9]{1,6})", re.IGNORECASE)
_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(.*)")
_PINNED = re.compile(r"\(?\s*==\s*([A-Za-z0-9][A-Za-z0-9.+!_-]*)\s*\)?")
_SUM = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")
_SEPARATORS = re.compile(r"[-_.]+")


@dataclass(frozen=True, slots=True)
class Portion:
    """A member of one of the wheels; `wheel` counts from 0, the package itself."""

    wheel: int
    member: Member


@dataclass(frozen=True, slots=True)
class Joined:
    """A file of the model: its pieces in order, and its digest where something tells it."""

    filename: str
    pieces: tuple[Portion, ...]
    digest: Digest | None

    @property
    def size(self) -> int:
        return sum(piece.member.size for piece in self.pieces)


def project(name: str) -> str:
    """A project's name as indexes compare it."""
    return _SEPARATORS.sub("-", name).lower()


def parts_of(name: str, requirements: Iterable[str]) -> tuple[str, ...]:
    """For pip, in order: the packages among what a package requires that hold parts of it. Others are no matter here.

    Unsupported when one is not pinned to one version: nobody could tell what the model would be made of.
    """
    found: dict[int, str] = {}
    ours = re.compile(re.escape(project(name)) + r"-part-?([0-9]{1,6})")
    for requirement in requirements:
        match = _REQUIREMENT.fullmatch(requirement.partition(";")[0].strip())
        numbered = ours.fullmatch(project(match[1])) if match is not None else None
        if match is None or numbered is None:
            continue
        pinned = _PINNED.fullmatch(match[2].strip())
        if pinned is None:
            raise Unsupported(f"the package {name} does not say which version of its part {match[1]} it needs")
        found[int(numbered[1])] = f"{match[1]}=={pinned[1]}"
    if len(found) > MOST_PARTS:
        raise Unsupported(f"the package {name} has {len(found)} parts: {MOST_PARTS} at most are taken")
    return tuple(found[number] for number in sorted(found))


def is_carried(filename: str) -> bool:
    """Whether a member of that name may be part of a model, or a whole file of one."""
    whole = _whole(filename)[0].lower()
    return whole.endswith(".gguf") or re.fullmatch(r"sha256-[0-9a-f]{64}", whole) is not None


def is_sums(filename: str) -> bool:
    """Whether a member of that name holds checksums."""
    return filename.lower() in {"sha256sums", "sha256sums.txt"} or filename.lower().endswith(".sha256")


def parse_sums(text: str) -> dict[str, Digest]:
    """By filename; lines of another form say nothing."""
    matches = (_SUM.fullmatch(line.strip()) for line in text.splitlines())
    return {match[2].rpartition("/")[2]: Digest(match[1].lower()) for match in matches if match is not None}


def join(pieces: Iterable[Portion], sums: Mapping[str, Digest]) -> tuple[Joined, ...]:
    """The files that the pieces make, by name. SourceError when a part is missing or comes twice."""
    files: dict[str, dict[int, Portion]] = {}
    for piece in pieces:
        filename, number = _whole(piece.member.filename)
        there = files.setdefault(filename, {})
        if number in there or (there and -1 in (number, *there)):
            raise SourceError(f"{piece.member.filename} is in the packages twice")
        there[number] = piece
    return tuple(Joined(name, _ordered(name, files[name]), sums.get(name)) for name in sorted(files))


def weights_first(files: Sequence[Joined], requirement: str) -> tuple[Joined, ...]:
    """The weights, then their projector if the package has one. SourceNotFound: none; Unsupported: several."""
    files = [file for file in files if file.filename.lower().endswith(".gguf")]
    if not files:
        raise SourceNotFound(f"the package {requirement} contains no GGUF model", param="model")
    projectors = [file for file in files if "mmproj" in file.filename.lower()]
    weights = [file for file in files if file not in projectors]
    if len(weights) != 1 or len(projectors) > 1:
        names = ", ".join(file.filename for file in files)
        raise Unsupported(f"the package {requirement} contains several models, which is not supported: {names}")
    return (*weights, *projectors)


def blobs_of(layers: Sequence[Layer], files: Sequence[Joined], requirement: str) -> tuple[tuple[Layer, Joined], ...]:
    """The files that are a manifest's blobs, each once. SourceError when one is missing or has another size."""
    by_name = {file.filename: file for file in files}
    found: dict[str, tuple[Layer, Joined]] = {}
    for layer in layers:
        name = Digest(layer.digest.hex.lower()).filename
        file = by_name.get(name)
        if file is None:
            raise SourceError(f"the package {requirement} is not whole: {layer.digest} is missing")
        if file.size != layer.size:
            raise SourceError(f"the package {requirement} is damaged: {layer.digest} has {file.size} bytes")
        found[name] = layer, Joined(name, file.pieces, layer.digest)
    return tuple(found.values())


def _whole(filename: str) -> tuple[str, int]:
    """The file that it is, or is a part of, and the part's number; -1: all of it."""
    match = _PART.fullmatch(filename)
    return (filename, -1) if match is None else (match["file"], int(match["number"]))


def _ordered(name: str, pieces: Mapping[int, Portion]) -> tuple[Portion, ...]:
    if -1 in pieces:
        return (pieces[-1],)
    numbers = sorted(pieces)
    first = min(numbers[0], 1)
    missing = next((number for number in range(first, first + len(numbers)) if number not in pieces), None)
    if missing is not None:
        raise SourceError(f"{name} is not whole: its part {missing} is missing")
    return tuple(pieces[number] for number in numbers)
