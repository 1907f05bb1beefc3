"""Fills a models directory as Ollama, or another program, would have left it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from puna.model.digest import Digest
from puna.model.gguf import read_header
from puna.model.manifest import CONFIG_TYPE, MODEL_TYPE, Layer, Manifest
from puna.model.model import config_of
from puna.model.name import Name
from puna.store.library import Library

IMAGE = "application/vnd.ollama.image."


def add_file(models: Path, name: str, file: Path) -> Library:
    """The model of a GGUF file, as Puna itself writes it. Gives the store."""
    library = Library.open(models)
    header = read_header(file)
    weights = Layer(MODEL_TYPE, library.blobs.add_file(file), header.size)
    config = library.blobs.add_layer(CONFIG_TYPE, config_of(header).dump())
    library.write_manifest(Name.parse(name), Manifest(config, (weights,)))
    return library


def put_blob(models: Path, data: bytes, *, colon: bool = False) -> Digest:
    digest = Digest.of(data)
    path = models / "blobs" / (str(digest) if colon else digest.filename)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return digest


def put_model(
    models: Path,
    name: str,
    weights: bytes,
    layers: Mapping[str, bytes] | None = None,
    *,
    config: Mapping[str, object] | None = None,
    colon: bool = False,
) -> Path:
    """`name`: 'model/tag', or with host and namespace before; `layers`: by the last word of their type."""

    def layer(media_type: str, data: bytes) -> dict[str, object]:
        return {"mediaType": media_type, "digest": str(put_blob(models, data, colon=colon)), "size": len(data)}

    listed = [layer(IMAGE + "model", weights)] + [layer(IMAGE + kind, data) for kind, data in (layers or {}).items()]
    shape = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": layer("application/vnd.docker.container.image.v1+json", json.dumps(config or {}).encode()),
        "layers": listed,
    }
    parts = name.split("/")
    prefix = ["registry.ollama.ai", "library"][: 4 - len(parts)]
    path = models.joinpath("manifests", *prefix, *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another program's spacing: its bytes must be kept.
    path.write_text(json.dumps(shape, indent=1))
    return path
