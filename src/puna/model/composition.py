"""Composition: the files of one model, weights first, in one file or in its shards, and what lies beside them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from puna.errors import ModelFileError, Unsupported
from puna.model.gguf import Header
from puna.model.manifest import ADAPTER_TYPE, MODEL_TYPE, PROJECTOR_TYPE, Layer
from puna.model.shards import ShardName, filename, place, together


def composed(files: Sequence[tuple[Layer, Header]]) -> tuple[tuple[Layer, ...], Header]:
    """The layers in their order, and the header of the weights. Each Layer says its filename (`from_`).

    Unsupported: no weights, or those of several models. ModelFileError: shards that do not belong together.
    """
    weights = [(layer, header) for layer, header in files if layer.media_type == MODEL_TYPE]
    if not weights:
        given = _called(layer for layer, _ in files)
        where = f" in {given}" if given else ""
        raise Unsupported(f"a GGUF with a model's weights is needed; there are none{where}", param="files")
    alone = [layer for layer, header in weights if place(header) is None]
    if len(alone) == len(weights) > 1:
        raise Unsupported(
            f"one GGUF with a model's weights is needed; there are several: {_called(alone)}", param="files"
        )
    if alone and len(weights) > 1:
        raise ModelFileError(f"{len(weights)} files with weights are given; no shard of a model is {_called(alone)}")
    named = ShardName.parse(weights[0][0].from_ or "")
    stem = "model" if named is None else named.stem
    whole = together(weights, stem)
    if not whole.header.tensors:
        raise ModelFileError(f"{_called(whole.files)}: holds no tensors")
    shards = whole.files
    if len(shards) > 1:
        shards = tuple(
            replace(layer, name=filename(stem, number, len(shards))) for number, layer in enumerate(shards, 1)
        )
    order = (PROJECTOR_TYPE, ADAPTER_TYPE)
    beside = [layer for layer, _ in files if layer.media_type != MODEL_TYPE]
    return (*shards, *sorted(beside, key=lambda layer: order.index(layer.media_type))), whole.header


def _called(layers: Iterable[Layer]) -> str:
    """By the names that the user gave them."""
    return ", ".join(layer.from_ or str(layer.digest) for layer in layers)
