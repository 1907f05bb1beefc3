"""A model file of this machine, taken into the store without a second copy where the file system allows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from puna.errors import ModelFileError, NotFound
from puna.model.gguf import Header, read_header
from puna.model.manifest import ADAPTER_TYPE, MODEL_TYPE, PROJECTOR_TYPE, Layer
from puna.sources.worker import Report
from puna.store.library import Library
from puna.types import Progress


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A GGUF as a typed layer, with what its header says."""

    layer: Layer
    header: Header


def media_type_of(header: Header) -> str:
    """Which kind of layer a GGUF is. Pure."""
    arch = header.architecture
    if header.kind == "adapter":
        return ADAPTER_TYPE
    if header.kind in {"projector", "mmproj"} or arch == "clip":
        return PROJECTOR_TYPE
    if header.number(f"{arch}.vision.block_count") and not header.block_count:
        return PROJECTOR_TYPE
    return MODEL_TYPE


def add_model_file(path: Path, library: Library, report: Report) -> ModelFile:
    """Blocking. The header is checked before anything is stored. NotFound, ModelFileError or StoreError."""
    if not path.is_file():
        raise NotFound(f"no such file: {path.name}", param="from")
    try:
        header = read_header(path)
    except OSError as error:
        raise ModelFileError(f"{path.name} cannot be read: {error.strerror or error}") from error
    digest = library.blobs.add_file(
        path, lambda done: report(Progress(f"copying file {path.name}", path.name, header.size, done))
    )
    return ModelFile(Layer(media_type_of(header), digest, library.blobs.size(digest), path.name), header)
