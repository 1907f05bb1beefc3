"""Document: a manifest as a registry gave it, read without trust and refused before anything of it is fetched. Pure."""

from __future__ import annotations

import json

from puna.errors import ModelFileError, SourceError, Unsupported
from puna.model.digest import Digest
from puna.model.manifest import (
    ADAPTER_TYPE,
    CONFIG_TYPE,
    LICENSE_TYPE,
    MANIFEST_TYPE,
    MAX_MANIFEST_BYTES,
    MESSAGES_TYPE,
    MODEL_TYPE,
    PARAMS_TYPE,
    PROJECTOR_TYPE,
    PROMPT_TYPE,
    SYSTEM_TYPE,
    TEMPLATE_TYPE,
    Config,
    Manifest,
    parse_manifest,
)
from puna.model.name import Name

OCI_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_INDEXES = {
    "application/vnd.oci.image.index.v1+json": "an OCI image index",
    "application/vnd.docker.distribution.manifest.list.v2+json": "a Docker manifest list",
}
ACCEPTED = ", ".join((MANIFEST_TYPE, OCI_MANIFEST_TYPE, *_INDEXES))
"""What is asked for. Indexes too, so that they can be refused by name."""

MAX_LAYERS = 1000
MAX_TEXT_BYTES = 16 * 1024 * 1024
_TENSOR_TYPE = "application/vnd.ollama.image.tensor"
_TEXTS = frozenset({TEMPLATE_TYPE, PROMPT_TYPE, SYSTEM_TYPE, PARAMS_TYPE, MESSAGES_TYPE, LICENSE_TYPE})
_FILES = frozenset({MODEL_TYPE, PROJECTOR_TYPE, ADAPTER_TYPE})


def read_document(data: bytes, media_type: str, name: Name) -> Manifest:
    """A model that can be pulled, or Unsupported or ModelFileError, which say why not. `media_type`: as it came."""
    what = f"'{name.short}'"
    _check_kind(data, media_type, what)
    manifest = parse_manifest(data)
    types = [layer.media_type for layer in manifest.layers]
    if len(types) > MAX_LAYERS and _TENSOR_TYPE not in types:
        raise ModelFileError(f"{what} lists {len(types)} layers, more than the {MAX_LAYERS} that are taken")
    if _TENSOR_TYPE in types:
        raise Unsupported(
            f"{what} is stored as safetensors tensors for MLX ({types.count(_TENSOR_TYPE)} layers of the kind "
            f"{_TENSOR_TYPE}), which no engine here runs: pull a variant of it in GGUF",
            param="model",
        )
    sizes: dict[Digest, int] = {}
    for layer in manifest.blobs:
        if sizes.setdefault(layer.digest, layer.size) != layer.size:
            raise ModelFileError(f"damaged manifest: {layer.digest} has two sizes")
        if layer.media_type in _TEXTS and layer.size > MAX_TEXT_BYTES:
            raise ModelFileError(f"{what} lists a text of {layer.size} bytes ({layer.media_type}), more than are taken")
    if manifest.config.size > MAX_MANIFEST_BYTES:
        raise ModelFileError(f"{what} lists a config of {manifest.config.size} bytes, more than are taken")
    if MODEL_TYPE not in types and not (manifest.config.media_type == CONFIG_TYPE and _TEXTS.issuperset(types)):
        kinds = ", ".join(sorted(set(types))) or "none"
        raise Unsupported(f"{what} is no model that runs here: its layers are of the kinds {kinds}", param="model")
    return manifest


def check_config(config: Config, manifest: Manifest, name: Name) -> None:
    """Unsupported when a model runs elsewhere, or is of a format that no engine here runs."""
    if config.remote_host or config.remote_model:
        where = config.remote_host or "another host"
        raise Unsupported(f"'{name.short}' has no weights to pull: it runs on {where} ({config.remote_model})")
    if not manifest.of_type(MODEL_TYPE) and config.model_format == "gguf":
        raise Unsupported(f"'{name.short}' has no weights: its manifest lists none", param="model")
    if config.model_format != "gguf":
        raise Unsupported(f"'{name.short}' is in the format {config.model_format}, which no engine here runs")


def is_file(media_type: str) -> bool:
    """Whether a layer is a GGUF."""
    return media_type in _FILES


def _check_kind(data: bytes, media_type: str, what: str) -> None:
    try:
        shape = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"the manifest of {what} is not JSON: {error}") from error
    if not isinstance(shape, dict):
        raise SourceError(f"the manifest of {what} is not an object")
    stated = shape.get("mediaType")
    kinds = {media_type.partition(";")[0].strip().lower(), stated if isinstance(stated, str) else ""}
    index = next((words for kind, words in _INDEXES.items() if kind in kinds), None)
    if index is not None or isinstance(shape.get("manifests"), list):
        raise Unsupported(f"{what} is {index or 'an index'} of several manifests, not a model", param="model")
    if shape.get("schemaVersion") != 2:
        raise Unsupported(f"{what} has a manifest of a version that is not read here (schemaVersion)", param="model")
