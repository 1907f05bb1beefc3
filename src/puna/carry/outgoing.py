"""Models out of a store, into one tar in OCI's image layout. The same models give the same bytes every time."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from puna.carry.layout import INDEX, MARK, Carried, blob_member, dump_index, mark
from puna.carry.tar import BLOCK, CHUNK
from puna.errors import ModelFileError
from puna.model.digest import Digest
from puna.model.manifest import Layer, parse_manifest
from puna.model.reference import Reference
from puna.store.files import store_errors, whole_file
from puna.store.library import Library
from puna.types import Progress

Told = Callable[[Progress], None]
"""Told of each step."""


def write_archive(wanted: Sequence[Reference], library: Library, path: Path, told: Told) -> None:
    """The archive at `path`, in one step: it is whole, or `path` is as it was. Else as `send_archive`."""
    with whole_file(path) as stream:
        send_archive(wanted, library, stream, told)


def send_archive(wanted: Sequence[Reference], library: Library, stream: BinaryIO, told: Told) -> None:
    """The archive, as it is written. Each blob is hashed on its way.

    ModelNotFound; ModelFileError: a blob is damaged; StoreError: one is missing, or cannot be read. What was written by
    then is no archive.
    """
    manifests: dict[Digest, bytes] = {}
    models: list[Carried] = []
    blobs: dict[Digest, Layer] = {}
    for one in sorted(set(wanted), key=lambda one: one.name.full):
        told(Progress(f"reading manifest of {one.short}"))
        data = library.manifest_bytes(one)
        manifest = parse_manifest(data)
        digest = Digest.of(data)
        manifests[digest] = data
        models.append(Carried(library.spelled(one.name), digest, len(data), manifest.media_type))
        blobs |= {Digest(layer.digest.hex.lower()): layer for layer in manifest.blobs}
    for layer in blobs.values():
        _check_size(layer, library)
    _send(stream, MARK, [mark()], len(mark()))
    index = dump_index(models)
    _send(stream, INDEX, [index], len(index))
    for digest in sorted({*manifests, *blobs}, key=lambda digest: digest.hex):
        if digest in manifests:
            _send(stream, blob_member(digest), [manifests[digest]], len(manifests[digest]))
        else:
            _send(stream, blob_member(digest), _content(blobs[digest], library, told), blobs[digest].size)
    stream.write(bytes(2 * BLOCK))
    stream.flush()


def _check_size(layer: Layer, library: Library) -> None:
    size = library.blobs.size(layer.digest)
    if size != layer.size:
        raise ModelFileError(f"blob {layer.digest} is damaged: it has {size} of its {layer.size} bytes")


def _send(stream: BinaryIO, name: str, pieces: Iterable[bytes], size: int) -> None:
    """A plain file of nobody's, of no time, with `size` bytes in all."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    stream.write(info.tobuf(tarfile.PAX_FORMAT))
    for piece in pieces:
        stream.write(piece)
    stream.write(bytes(-size % BLOCK))


def _content(layer: Layer, library: Library, told: Told) -> Iterator[bytes]:
    """The bytes of a blob. ModelFileError, at the latest at their end, when they are not what its digest says."""
    hashed, done = hashlib.sha256(), 0
    with store_errors(f"reading blob {layer.digest}"):
        file = library.blobs.path(layer.digest).open("rb", buffering=0)
    with file:
        while done < layer.size:
            with store_errors(f"reading blob {layer.digest}"):
                data = file.read(min(CHUNK, layer.size - done))
            if not data:
                raise ModelFileError(f"blob {layer.digest} is damaged: it became shorter while it was read")
            hashed.update(data)
            done += len(data)
            told(Progress(f"exporting {layer.digest.short}", str(layer.digest), layer.size, done))
            yield data
    if hashed.hexdigest() != layer.digest.hex.lower():
        raise ModelFileError(f"blob {layer.digest} is damaged: its bytes are not those that were stored")
