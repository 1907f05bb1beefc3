"""Reading: a Manifest becomes a Model. What several models are made of is looked for, read and checked once.

A reading lasts for one look at a store: for one model, or for all when they are listed. Blocking.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from puna.errors import ModelDamaged, ModelFileError, Unsupported
from puna.model.capabilities import Capability, capabilities
from puna.model.digest import listed_digest
from puna.model.gguf import Header
from puna.model.manifest import (
    ADAPTER_TYPE,
    CONFIG_TYPE,
    LICENSE_TYPE,
    MAX_MANIFEST_BYTES,
    MESSAGES_TYPE,
    MODEL_TYPE,
    PARAMS_TYPE,
    PROJECTOR_TYPE,
    PROMPT_TYPE,
    SYSTEM_TYPE,
    TEMPLATE_TYPE,
    Config,
    Layer,
    Manifest,
    parse_config,
)
from puna.model.messages import messages_from_json
from puna.model.model import Model
from puna.model.name import Name
from puna.model.parameters import stored_options
from puna.model.shards import place, together
from puna.store.blobs import Blobs, damaged
from puna.store.faults import MISSING, wrong_size
from puna.store.stamp import StampedFile
from puna.types import JsonValue, Message, Options

MAX_TEXT_BYTES = 16 * 1024 * 1024
"""Of a template, system, params, messages or license layer."""
_HEADERS = 512
_REMEMBERED = 1 << 14
"""Of what is small."""
_MOST_READ = 32 * 1024 * 1024
"""Bytes of texts after which what is remembered is forgotten."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class _Weights:
    """The files in order, and the Header of all."""

    layers: tuple[Layer, ...]
    header: Header


@dataclass(slots=True)
class Reading:
    """`header`: the Header of a file, which an error calls by the words that are given."""

    blobs: Blobs
    header: Callable[[Path, str], Header]
    _headers: dict[str, Header] = field(default_factory=dict)
    _known: dict[tuple[object, ...], Any] = field(default_factory=dict)
    _read: int = 0

    def model(self, name: Name, manifest: Manifest, digest: str, *, modified: datetime, read_only: bool) -> Model:
        """`digest`: of the manifest's bytes. ModelFileError, ModelDamaged or StoreError when a file is not usable."""
        config = self._once("config", self._config, name, manifest.config)
        weights = self._weights(name, manifest.of_type(MODEL_TYPE), config)
        projectors = manifest.of_type(PROJECTOR_TYPE)
        template = _last(manifest, TEMPLATE_TYPE, PROMPT_TYPE)
        options, ignored = self._options(name, manifest)
        return Model(
            name=name,
            digest=digest,
            manifest=manifest,
            config=config,
            header=weights.header,
            weights=self._path(name, weights.layers[0]),
            weights_digest=listed_digest([layer.digest for layer in weights.layers]),
            shards=tuple(self._path(name, layer) for layer in weights.layers[1:]),
            projectors=tuple(self._path(name, layer) for layer in projectors),
            adapters=tuple(self._path(name, layer) for layer in manifest.of_type(ADAPTER_TYPE)),
            go_template=None if template is None else self._text(name, template),
            system=self._last_text(name, manifest, SYSTEM_TYPE),
            options=options,
            ignored_parameters=ignored,
            messages=self._messages(name, manifest),
            licenses=tuple(self._text(name, layer) for layer in manifest.of_type(LICENSE_TYPE)),
            capabilities=self._capabilities(name, weights, template, projectors, config),
            size=manifest.size,
            modified=modified,
            read_only=read_only,
        )

    def _once(self, what: str, make: Callable[[Name, Layer], _Value], name: Name, layer: Layer) -> _Value:
        """What `make` makes of the layer, remembered. What it raises it raises each time."""
        key = what, layer.digest.hex
        known: _Value | None = self._known.get(key)
        return self._remember(key, make(name, layer)) if known is None else known

    def _remember(self, key: tuple[object, ...], value: _Value) -> _Value:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[key] = value
        return value

    def _config(self, name: Name, layer: Layer) -> Config:
        return parse_config(self._bytes(name, layer, MAX_MANIFEST_BYTES))

    def _weights(self, name: Name, layers: Sequence[Layer], config: Config) -> _Weights:
        """The last layer's, which counts where there are several; or all of them, when it is one shard of a model."""
        if not layers:
            where = f"it runs on {config.remote_host}" if config.remote_host else f"its format is {config.model_format}"
            raise Unsupported(f"model '{name.short}' has no GGUF weights here: {where}", param="model")
        header = self._header(name, layers[-1])
        if place(header) is None:
            return _Weights((layers[-1],), header)
        try:
            whole = together([(layer, self._header(name, layer)) for layer in layers])
        except ModelDamaged:
            raise
        except ModelFileError as error:
            raise ModelFileError(f"a file of model '{name.short}': {error}") from error
        return _Weights(whole.files, whole.header)

    def _header(self, name: Name, layer: Layer) -> Header:
        """Large, so the one that nobody asked for the longest is forgotten when there are too many."""
        key = layer.digest.hex
        header = self._headers.pop(key, None) or self._header_of(name, layer)
        while len(self._headers) >= _HEADERS:
            self._headers.pop(next(iter(self._headers)))
        self._headers[key] = header  # the last, now
        return header

    def _header_of(self, name: Name, layer: Layer) -> Header:
        """One that cannot be read was sound when it was stored, so its file is likely damaged."""
        path = self._path(name, layer)
        try:
            return self.header(path, f"a file of model '{name.short}'")
        except ModelFileError as error:
            size = self.blobs.size(layer.digest)
            if size != layer.size:
                raise damaged(wrong_size(size, layer.size), layer.digest, part_of(layer, name), name.short) from error
            cure = f"If it is damaged, this mends it: puna verify {name.short} --repair"
            raise ModelFileError(f"{error.message}. {cure}") from error

    def _capabilities(
        self, name: Name, weights: _Weights, template: Layer | None, projectors: Sequence[Layer], config: Config
    ) -> frozenset[Capability]:
        files = tuple(layer and layer.digest.hex for layer in (template, *weights.layers, *projectors))
        key = "capabilities", files, config.renderer, config.capabilities
        known: frozenset[Capability] | None = self._known.get(key)
        if known is not None:
            return known
        go_template = None if template is None else self._text(name, template)
        seen = [self._header(name, one) for one in projectors]
        return self._remember(key, capabilities(weights.header, go_template, seen, config))

    def files(self, name: Name, manifest: Manifest) -> tuple[StampedFile, ...] | None:
        """Of all its blobs, those too that nobody reads; None when one is missing."""
        try:
            return tuple(self._located(name, layer) for layer in manifest.blobs)
        except ModelDamaged:
            return None

    def _path(self, name: Name, layer: Layer) -> Path:
        return self._once("path", self._path_of, name, layer)

    def _path_of(self, name: Name, layer: Layer) -> Path:
        return Path(self._located(name, layer).path)

    def _located(self, name: Name, layer: Layer) -> StampedFile:
        return self._once("file", self._found, name, layer)

    def _found(self, name: Name, layer: Layer) -> StampedFile:
        found = self.blobs.locate(layer.digest)
        if found is None:
            raise damaged(MISSING, layer.digest, part_of(layer, name), name.short)
        return found

    def _bytes(self, name: Name, layer: Layer, limit: int) -> bytes:
        data = self._checked(name, layer, limit)
        self._read += len(data)
        if self._read > _MOST_READ:
            self._known.clear()
            self._read = len(data)
        return data

    def _checked(self, name: Name, layer: Layer, limit: int) -> bytes:
        path = self._located(name, layer).path
        try:
            return self.blobs.read(layer.digest, limit=limit, path=path)
        except ModelDamaged:
            fault = self.blobs.fault(layer.digest, layer.size)
            if fault is None:
                return self.blobs.read(layer.digest, limit=limit)  # it was stored anew in this moment
            raise damaged(fault, layer.digest, part_of(layer, name), name.short) from None

    def _text(self, name: Name, layer: Layer) -> str:
        return self._once("text", self._text_of, name, layer)

    def _text_of(self, name: Name, layer: Layer) -> str:
        return self._bytes(name, layer, MAX_TEXT_BYTES).decode("utf-8", "replace")

    def _last_text(self, name: Name, manifest: Manifest, media_type: str) -> str | None:
        layer = _last(manifest, media_type)
        return None if layer is None else self._text(name, layer)

    def _json(self, name: Name, layer: Layer) -> JsonValue:
        text = self._text(name, layer)
        try:
            value: JsonValue = json.loads(text) if text else None
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"the {layer.media_type.rpartition('.')[2]} layer is not JSON: {error}") from error
        return value

    def _options(self, name: Name, manifest: Manifest) -> tuple[Options, tuple[str, ...]]:
        layer = _last(manifest, PARAMS_TYPE)
        return (Options(), ()) if layer is None else self._once("options", self._options_of, name, layer)

    def _options_of(self, name: Name, layer: Layer) -> tuple[Options, tuple[str, ...]]:
        value = self._json(name, layer)
        if value is None:
            return Options(), ()
        if not isinstance(value, dict):
            raise ModelFileError("the params layer is not an object")
        return stored_options(value)

    def _messages(self, name: Name, manifest: Manifest) -> tuple[Message, ...]:
        layer = _last(manifest, MESSAGES_TYPE)
        value = None if layer is None else self._json(name, layer)
        return () if value is None else messages_from_json(value)


def part_of(layer: Layer, name: Name) -> str:
    """A layer in words: the template of model 'a:latest'."""
    kind = _PARTS.get(layer.media_type) or f"layer '{layer.media_type.rpartition('.')[2]}'"
    return f"the {kind} of model '{name.short}'"


_PARTS = {
    MODEL_TYPE: "weights file",
    PROJECTOR_TYPE: "projector",
    ADAPTER_TYPE: "adapter",
    TEMPLATE_TYPE: "template",
    PROMPT_TYPE: "template",
    SYSTEM_TYPE: "system message",
    PARAMS_TYPE: "parameters file",
    MESSAGES_TYPE: "messages file",
    LICENSE_TYPE: "licence",
    CONFIG_TYPE: "config",
}


def _last(manifest: Manifest, *media_types: str) -> Layer | None:
    """Of several layers of one type the last counts."""
    return next(reversed(manifest.of_type(*media_types)), None)
