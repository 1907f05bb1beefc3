"""Manifest, Layer and Config: the files that say what a model is made of, in Ollama's JSON. Pure.

A manifest that came from elsewhere keeps its own bytes in the store: `dump` is only for manifests made here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from puna.errors import InvalidRequest, ModelFileError
from puna.model.digest import Digest

if TYPE_CHECKING:
    from puna.types import JsonObject, JsonValue

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_IMAGE = "application/vnd.ollama.image."
MODEL_TYPE = _IMAGE + "model"
PROJECTOR_TYPE = _IMAGE + "projector"
ADAPTER_TYPE = _IMAGE + "adapter"
TEMPLATE_TYPE = _IMAGE + "template"
PROMPT_TYPE = _IMAGE + "prompt"
"""The old name of TEMPLATE_TYPE."""
SYSTEM_TYPE = _IMAGE + "system"
PARAMS_TYPE = _IMAGE + "params"
MESSAGES_TYPE = _IMAGE + "messages"
LICENSE_TYPE = _IMAGE + "license"

PACKAGED = "puna-manifest.json"
"""What a manifest is called in a package of an index; blobs are called as in a store."""

MAX_MANIFEST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Layer:
    """A typed blob. `from_`: the short Name, or the file, that it came from; `name`: its path inside the model."""

    media_type: str
    digest: Digest
    size: int
    from_: str | None = None
    name: str | None = None

    def to_json(self) -> JsonObject:
        shape: JsonObject = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.from_:
            shape["from"] = self.from_
        if self.name:
            shape["name"] = self.name
        return shape


@dataclass(frozen=True, slots=True)
class Manifest:
    config: Layer
    layers: tuple[Layer, ...]
    media_type: str = MANIFEST_TYPE

    @property
    def blobs(self) -> tuple[Layer, ...]:
        """The layers and the config: everything that must be in the store."""
        return (*self.layers, self.config)

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(layer.size for layer in self.blobs)

    def of_type(self, *media_types: str) -> tuple[Layer, ...]:
        return tuple([layer for layer in self.layers if layer.media_type in media_types])

    def dump(self) -> bytes:
        return _dump(
            {
                "schemaVersion": 2,
                "mediaType": self.media_type,
                "config": self.config.to_json(),
                "layers": [layer.to_json() for layer in self.layers],
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Facts of a model for listings. `remote_host`: the model runs elsewhere and has no weights here."""

    model_format: str = "gguf"
    model_family: str = ""
    model_families: tuple[str, ...] = ()
    model_type: str = ""
    file_type: str = ""
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    capabilities: tuple[str, ...] = ()
    context_length: int | None = None
    embedding_length: int | None = None
    remote_host: str | None = None
    remote_model: str | None = None

    def dump(self) -> bytes:
        shape: JsonObject = {
            "model_format": self.model_format,
            "model_family": self.model_family,
            "model_families": list(self.model_families),
            "model_type": self.model_type,
            "file_type": self.file_type,
        }
        optional: Mapping[str, JsonValue] = {
            "renderer": self.renderer,
            "parser": self.parser,
            "requires": self.requires,
            "remote_host": self.remote_host,
            "remote_model": self.remote_model,
            "capabilities": list(self.capabilities),
            "context_length": self.context_length,
            "embedding_length": self.embedding_length,
        }
        shape |= {key: value for key, value in optional.items() if value}
        # Ollama's own creator writes these two whatever the machine is.
        return _dump(shape | {"architecture": "amd64", "os": "linux"})


def parse_manifest(data: bytes) -> Manifest:
    """ModelFileError when it is no manifest. Unknown keys and media types are let through."""
    shape = _object(_load(data, "manifest"), "manifest")
    layers = shape.get("layers")
    layers = [] if layers is None else layers
    if not isinstance(layers, list):
        raise ModelFileError("damaged manifest: layers is not a list")
    return Manifest(
        config=_layer(shape.get("config"), "config"),
        layers=tuple(_layer(item, f"layers[{index}]") for index, item in enumerate(layers)),
        media_type=_text(shape, "mediaType") or MANIFEST_TYPE,
    )


def parse_config(data: bytes) -> Config:
    """ModelFileError when it is no config. Keys that are absent or null have their defaults; others are ignored."""
    shape = _object(_load(data, "config"), "config")
    return Config(
        model_format=_text(shape, "model_format") or "gguf",
        model_family=_text(shape, "model_family") or "",
        model_families=_texts(shape, "model_families"),
        model_type=_text(shape, "model_type") or "",
        file_type=_text(shape, "file_type") or "",
        renderer=_text(shape, "renderer"),
        parser=_text(shape, "parser"),
        requires=_text(shape, "requires"),
        capabilities=_texts(shape, "capabilities"),
        context_length=_count(shape, "context_length"),
        embedding_length=_count(shape, "embedding_length"),
        remote_host=_text(shape, "remote_host"),
        remote_model=_text(shape, "remote_model"),
    )


def _dump(shape: JsonObject) -> bytes:
    return json.dumps(shape, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _load(data: bytes, what: str) -> JsonValue:
    if len(data) > MAX_MANIFEST_BYTES:
        raise ModelFileError(f"damaged {what}: {len(data)} bytes are more than one can have")
    try:
        value: JsonValue = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"damaged {what}: {error}") from error
    return value


def _object(value: JsonValue, what: str) -> JsonObject:
    if not isinstance(value, dict):
        raise ModelFileError(f"damaged manifest: {what} is not an object")
    return value


def _layer(value: JsonValue, what: str) -> Layer:
    shape = _object(value, what)
    size = shape.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ModelFileError(f"damaged manifest: {what}.size is not a number of bytes")
    digest, media_type = _text(shape, "digest") or "", _text(shape, "mediaType") or ""
    try:
        return _made(media_type, digest, size, _text(shape, "from"), _text(shape, "name"))
    except InvalidRequest as error:
        raise ModelFileError(f"damaged manifest: {what}.digest is not a digest") from error


@lru_cache(maxsize=1024)
def _made(media_type: str, digest: str, size: int, from_: str | None, name: str | None) -> Layer:
    """Once: of thousands of manifests many have the same template, licence and parameters."""
    return Layer(media_type, Digest.parse(digest), size, from_, name)


def _text(shape: JsonObject, key: str) -> str | None:
    value = shape.get(key)
    if value is None or isinstance(value, str):
        return value or None
    raise ModelFileError(f"damaged manifest: {key} is not text")


def _texts(shape: JsonObject, key: str) -> tuple[str, ...]:
    value = shape.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ModelFileError(f"damaged manifest: {key} is not a list of texts")
    texts = tuple(item for item in value if isinstance(item, str))
    if len(texts) != len(value):
        raise ModelFileError(f"damaged manifest: {key} is not a list of texts")
    return texts


def _count(shape: JsonObject, key: str) -> int | None:
    value = shape.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ModelFileError(f"damaged manifest: {key} is not a count")
    return value
