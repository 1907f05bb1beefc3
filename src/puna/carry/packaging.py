"""Wheels that carry a model: any package index, or a folder, then holds it. `pull pypi/NAME` takes it back to the byte.

One package; or, where the model is larger than a file of an index may be, packages NAME-part1, NAME-part2 … that hold
its large files in pieces, and one that requires them and says what they make. Nothing in them runs. The same model
gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from puna.carry.outgoing import Told
from puna.errors import InvalidRequest, ModelFileError
from puna.model.digest import Digest
from puna.model.manifest import LICENSE_TYPE, PACKAGED, Layer, Manifest, parse_manifest
from puna.model.name import DEFAULT_NAMESPACE, DEFAULT_TAG, Name
from puna.model.reference import Reference
from puna.store.blobs import CHUNK
from puna.store.files import store_errors, whole_file
from puna.store.library import Library
from puna.store.reading import MAX_TEXT_BYTES
from puna.types import Progress

PART_BYTES = 90_000_000
"""Of weights in one wheel: indexes take files of up to 100 MB from everybody."""
MAX_PART_BYTES = 2_000_000_000
SMALL_BYTES = 1 << 20
"""Files up to this size lie in the first package."""

_PROJECT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"([0-9]+!)?[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?")
_DATE = (1980, 1, 1, 0, 0, 0)
"""The first that a zip file can say."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """Bytes of a blob that lie in one package, as `filename`."""

    layer: Layer
    filename: str
    start: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """A wheel that was written."""

    path: Path
    requirement: str


def project_name(name: Name) -> str:
    """What a model's package is called where nobody says it."""
    namespace = "" if name.namespace.lower() == DEFAULT_NAMESPACE else f"{name.namespace}-"
    tag = "" if name.tag.lower() == DEFAULT_TAG else f"-{name.tag}"
    return re.sub(r"[-_.]+", "-", f"{namespace}{name.model}{tag}").strip("-").lower()


def write_wheels(
    wanted: Reference, library: Library, directory: Path, told: Told, *, name: str, version: str, part: int = PART_BYTES
) -> tuple[Packaged, ...]:
    """The wheels, the first package's last: with it the others are there. `part`: bytes of weights in one.

    InvalidRequest: a name or a version that is none; else as `send_archive`. A wheel that was there is replaced.
    """
    if not _PROJECT.fullmatch(name):
        raise InvalidRequest(f"{name!r} cannot be the name of a package", param="name")
    if not 0 < part <= MAX_PART_BYTES:
        raise InvalidRequest(f"a part of {part} bytes cannot be made", param="part")
    if not _VERSION.fullmatch(version):
        raise InvalidRequest(f"{version!r} is no version, such as 1.0.0", param="version")
    data = library.manifest_bytes(wanted)
    manifest = parse_manifest(data)
    for layer in manifest.blobs:
        _check(layer, library, told)
    parts, first = _divided(manifest, part)
    written = []
    for number, piece in enumerate(parts, 1):
        summary = f"Part {number} of {len(parts)} of the model {wanted.name.short}, for {name}."
        wheel = _Wheel(f"{name}-part{number}", version, summary)
        written.append(wheel.write(directory, [piece], library, told))
    required = [f"{name}-part{number}=={version}" for number in range(1, len(parts) + 1)]
    main = _Wheel(name, version, f"The model {wanted.name.short}: 'puna pull pypi/{name}' takes it.", required)
    texts = [library.blobs.read(layer.digest, limit=MAX_TEXT_BYTES) for layer in manifest.of_type(LICENSE_TYPE)]
    written.append(main.write(directory, first, library, told, data, texts))
    return tuple(written)


def _check(layer: Layer, library: Library, told: Told) -> None:
    """Its pieces go different ways: it is hashed before."""
    label = str(layer.digest)
    step = f"verifying {layer.digest.short}"
    if not library.blobs.intact(layer.digest, layer.size, lambda done: told(Progress(step, label, layer.size, done))):
        raise ModelFileError(f"blob {layer.digest} is damaged or missing: pull or create the model again")


def _divided(manifest: Manifest, part: int) -> tuple[list[_Slice], list[_Slice]]:
    """What lies in packages of its own, and what in the first."""
    layers = list({layer.digest.hex.lower(): layer for layer in manifest.blobs}.values())
    alone = sum(layer.size for layer in layers) <= part
    first = [_whole(layer) for layer in layers if alone or layer.size <= SMALL_BYTES]
    parts: list[_Slice] = []
    for layer in layers:
        if alone or layer.size <= SMALL_BYTES:
            continue
        starts = range(0, layer.size, part)
        for number, start in enumerate(starts):
            name = _whole(layer).filename + (f".part{number:02d}" if len(starts) > 1 else "")
            parts.append(_Slice(layer, name, start, min(part, layer.size - start)))
    return parts, first


def _whole(layer: Layer) -> _Slice:
    return _Slice(layer, Digest(layer.digest.hex.lower()).filename, 0, layer.size)


@dataclass(frozen=True, slots=True)
class _Wheel:
    """One package."""

    name: str
    version: str
    summary: str
    requires: Iterable[str] = ()

    def write(
        self,
        directory: Path,
        slices: Iterable[_Slice],
        library: Library,
        told: Told,
        manifest: bytes | None = None,
        licences: Iterable[bytes] = (),
    ) -> Packaged:
        module = re.sub(r"[-_.]+", "_", self.name).lower()
        info = f"{module}-{self.version}.dist-info"
        path = directory / f"{module}-{self.version}-py3-none-any.whl"
        with whole_file(path) as stream, zipfile.ZipFile(stream, "w") as archive:
            record = _Record(archive)
            record.add(f"{module}/__init__.py", [f'"""{self.summary}"""\n'.encode()])
            if manifest is not None:
                record.add(f"{module}/{PACKAGED}", [manifest])
            for piece in slices:
                record.add(f"{module}/{piece.filename}", _bytes_of(piece, library, told, path.name))
            names = []
            for number, text in enumerate(licences, 1):
                names.append(f"LICENSE.{number}")
                record.add(f"{info}/licenses/{names[-1]}", [text])
            record.add(f"{info}/METADATA", [self._metadata(names).encode()])
            record.add(
                f"{info}/WHEEL", [b"Wheel-Version: 1.0\nGenerator: puna\nRoot-Is-Purelib: true\nTag: py3-none-any\n"]
            )
            record.close(f"{info}/RECORD")
        return Packaged(path=path, requirement=f"{self.name}=={self.version}")

    def _metadata(self, licences: Iterable[str]) -> str:
        lines = ["Metadata-Version: 2.4", f"Name: {self.name}", f"Version: {self.version}", f"Summary: {self.summary}"]
        lines += [f"License-File: {name}" for name in licences]
        return "\n".join([*lines, *(f"Requires-Dist: {one}" for one in self.requires), ""])


class _Record:
    """Adds files to a wheel, and notes what it must say of each."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._lines: list[str] = []

    def add(self, name: str, pieces: Iterable[bytes]) -> None:
        """Stored as it is: weights hardly get smaller."""
        hashed, size = hashlib.sha256(), 0
        with self._archive.open(_entry(name), "w") as file:
            for data in pieces:
                hashed.update(data)
                size += len(data)
                file.write(data)
        digest = base64.urlsafe_b64encode(hashed.digest()).rstrip(b"=").decode()
        self._lines.append(f"{name},sha256={digest},{size}")

    def close(self, name: str) -> None:
        self._archive.writestr(_entry(name), "\n".join([*self._lines, f"{name},,", ""]))


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.external_attr = 0o644 << 16
    return info


def _bytes_of(piece: _Slice, library: Library, told: Told, wheel: str) -> Iterator[bytes]:
    done = 0
    with store_errors(f"reading blob {piece.layer.digest}"):
        file = library.blobs.path(piece.layer.digest).open("rb", buffering=0)
    with file:
        file.seek(piece.start)
        while done < piece.size:
            with store_errors(f"reading blob {piece.layer.digest}"):
                data = file.read(min(CHUNK, piece.size - done))
            if not data:
                raise ModelFileError(f"blob {piece.layer.digest} is damaged: it became shorter while it was read")
            done += len(data)
            told(Progress(f"writing {wheel}", wheel, piece.size, done))
            yield data
