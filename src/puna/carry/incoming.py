"""A tar in OCI's image layout into a store: every byte is checked before a model of it is listed.

The archive is read once, from its beginning to its end, and may be a pipe. Its blobs are written beside the store under
the digests that they turn out to have; no name of a member ever becomes a path. Only when all that the index asks for
is there, and is what its digest and its size say, the blobs move into the store and the models are listed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from puna.carry.layout import INDEX, MARK, Carried, blob_member, blob_of, check_layout, parse_index
from puna.carry.outgoing import Told
from puna.carry.tar import TarFile, shown, tar_files
from puna.errors import DigestMismatch, InvalidRequest, ModelFileError, Unsupported
from puna.model.digest import Digest
from puna.model.gguf import read_header
from puna.model.manifest import ADAPTER_TYPE, MAX_MANIFEST_BYTES, MODEL_TYPE, PROJECTOR_TYPE, Manifest, parse_manifest
from puna.model.name import Name
from puna.store.files import check_room, write_errors
from puna.store.library import Library
from puna.types import Progress

_MOST_TOLD = 20
"""Members of no model that are told by their names."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A model that was listed. `digest`: of its manifest."""

    name: Name
    digest: Digest


@dataclass(frozen=True, slots=True)
class _Sound:
    """A model of the archive all of which is there."""

    name: Name
    data: bytes
    manifest: Manifest


def read_archive(stream: BinaryIO, library: Library, told: Told, *, name: Name | None = None) -> tuple[Taken, ...]:
    """Take in the models of the archive. `name`: what a model is to be called that comes alone.

    ModelFileError: it is damaged, or is no such archive; DigestMismatch: a blob is not what its name says; Unsupported:
    a member, or what the archive holds, is of a kind that is not taken; StoreError: the disk. Nothing of the
    archive is listed then, and nothing is left behind.
    """
    with library.scratch("import") as directory:
        index, blobs = _unpack(stream, directory, told)
        models = [_sound(carried, blobs) for carried in _named(index, name)]
        for digest in sorted({layer.digest for model in models for layer in model.manifest.blobs}, key=str):
            library.blobs.take(blobs[Digest(digest.hex.lower())], digest)
    taken = []
    for model in models:
        told(Progress(f"writing manifest of {model.name.short}"))
        library.write_manifest(model.name, model.data)
        taken.append(Taken(model.name, Digest.of(model.data)))
    return tuple(taken)


def _unpack(stream: BinaryIO, directory: Path, told: Told) -> tuple[tuple[Carried, ...], dict[Digest, Path]]:
    """What the index names, and where the blobs are, each with the digest that it has."""
    index: tuple[Carried, ...] | None = None
    blobs: dict[Digest, Path] = {}
    strange = 0
    for member in tar_files(stream):
        digest = blob_of(member.name)
        if digest is not None:
            if digest in blobs:
                raise ModelFileError(f"the archive has {shown(member.name)} twice")
            blobs[digest] = _write(member, digest, directory, told)
        elif member.name.removeprefix("./") == INDEX:
            if index is not None:
                raise ModelFileError(f"the archive has {shown(member.name)} twice")
            index = parse_index(member.read(MAX_MANIFEST_BYTES))
        elif member.name.removeprefix("./") == MARK:
            check_layout(member.read(MAX_MANIFEST_BYTES))
        else:
            strange += 1
            if strange <= _MOST_TOLD:
                told(Progress(f"passing over {shown(member.name)}"))
    if strange > _MOST_TOLD:
        told(Progress(f"passing over {strange - _MOST_TOLD} more that are no part of a model"))
    if index is None:
        raise ModelFileError(f"this is no archive of models: it has no {INDEX}")
    return index, blobs


def _write(member: TarFile, digest: Digest, directory: Path, told: Told) -> Path:
    check_room(directory, member.size)
    path = directory / digest.filename
    hashed, done = hashlib.sha256(), 0
    with write_errors("writing a blob of the archive"):
        file = path.open("xb")
    with file:
        for data in member.pieces():
            hashed.update(data)
            done += len(data)
            with write_errors("writing a blob of the archive"):
                file.write(data)
            told(Progress(f"importing {digest.short}", str(digest), member.size, done))
    if hashed.hexdigest() != digest.hex:
        raise DigestMismatch(f"{shown(member.name)} of the archive has the digest sha256:{hashed.hexdigest()}")
    return path


def _named(index: tuple[Carried, ...], name: Name | None) -> Iterator[Carried]:
    if name is not None:
        if len(index) != 1:
            raise InvalidRequest(f"the archive has {len(index)} models: one name is not enough for them", param="name")
        index = (replace(index[0], name=name),)
    seen: dict[tuple[str, str, str, str], Carried] = {}
    for carried in index:
        if carried.name is None:
            raise InvalidRequest(f"the archive does not say what {carried.manifest} is called: name it", param="name")
        if seen.setdefault(carried.name.folded, carried) is not carried:
            raise ModelFileError(f"the archive has two models called {carried.name.short}")
        yield carried


def _sound(carried: Carried, blobs: Mapping[Digest, Path]) -> _Sound:
    """All that the model needs is there, and its files can be read. Or the error that says what is wrong."""
    assert carried.name is not None
    data = _manifest_bytes(carried, blobs)
    manifest = parse_manifest(data)
    if not manifest.of_type(MODEL_TYPE):
        raise Unsupported(f"{carried.name.short} of the archive is no model: none of its layers holds GGUF weights")
    for layer in manifest.blobs:
        path = blobs.get(Digest(layer.digest.hex.lower()))
        if path is None:
            raise ModelFileError(f"the archive lacks {blob_member(layer.digest)}, a blob of {carried.name.short}")
        if path.stat().st_size != layer.size:
            raise ModelFileError(
                f"{blob_member(layer.digest)} of the archive has {path.stat().st_size} bytes; the manifest of "
                f"{carried.name.short} says {layer.size}"
            )
        if layer.media_type in {MODEL_TYPE, PROJECTOR_TYPE, ADAPTER_TYPE}:
            read_header(path, name=f"a file of {carried.name.short}")
    return _Sound(carried.name, data, manifest)


def _manifest_bytes(carried: Carried, blobs: Mapping[Digest, Path]) -> bytes:
    path = blobs.get(Digest(carried.manifest.hex.lower()))
    if path is None:
        raise ModelFileError(f"the archive lacks {blob_member(carried.manifest)}, which its index names")
    size = path.stat().st_size
    if size != carried.size or size > MAX_MANIFEST_BYTES:
        raise ModelFileError(
            f"{blob_member(carried.manifest)} of the archive has {size} bytes: too many, or not as said"
        )
    return path.read_bytes()
