"""Models as Ollama's listings show them: `/api/tags`, `/api/ps`, `/api/show`. Pure.

Keys and their order are Ollama's; `engine`, `engine_reason`, `slots`, `busy` (requests under way) and
what else this server makes of a model (see `Here`) are ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from puna.inference.sampling import cut_context
from puna.model.gguf import Header
from puna.model.listed import Label, Listed
from puna.model.metadata import ArrayInfo
from puna.model.model import Model
from puna.model.modelfile import render_model
from puna.model.parameters import options_to_json
from puna.scheduler.place import Loaded, Waiter
from puna.scheduler.reckoning import Reckoning
from puna.types import JsonObject, JsonValue, Options

_FOREVER = timedelta(days=292 * 365)
"""Ollama writes 'for ever' as its longest duration from now."""

_OUTSIDE_INFO = frozenset({"general.name", "tokenizer.chat_template"})


TAG_ITEMS = 20
"""How many values a tag has, about."""


def tag(model: Listed) -> JsonObject:
    """An entry of `/api/tags`."""
    known = model.label
    details = _details(known)
    if known.context_length:
        details["context_length"] = known.context_length
    if known.embedding_length:
        details["embedding_length"] = known.embedding_length
    return {
        "name": model.name.short,
        "model": model.name.short,
        "modified_at": _rfc3339(model.modified),
        "size": known.size,
        "digest": known.digest,
        "details": details,
        "capabilities": list(known.capabilities),
    }


def running(loaded: Loaded, now: datetime) -> JsonObject:
    """An entry of `/api/ps`."""
    model = loaded.model
    return {
        "name": model.name.short,
        "model": model.name.short,
        "size": loaded.size,
        "digest": model.digest,
        "details": _details(Label.of(model)),
        "expires_at": _rfc3339(loaded.expires_at or now + _FOREVER),
        "size_vram": 0,
        "context_length": loaded.num_ctx,
        "engine": loaded.engine,
        "engine_reason": loaded.reason,
        "slots": loaded.info.slots,
        "busy": loaded.users,
        **({"pinned": True} if loaded.pinned else {}),
    }


def waiting(waiter: Waiter) -> JsonObject:
    """An entry of the queue in `/api/ps`: ours."""
    return {
        "request": waiter.request,
        "model": waiter.model,
        "state": waiter.state,
        "position": waiter.position,
        "waited": round(waiter.seconds, 1),
    }


@dataclass(frozen=True, slots=True)
class Here:
    """What this server makes of a model. `engine`: the one that runs it, '' if none can; `reason`: why.

    `context`: tokens that a request has that asks for no number of them. `tool_syntax`: whose way of writing calls is
    followed, `template` or `puna`; None: it calls no tools. `source`: where it was pulled from, '' if it was not.
    """

    engine: str
    reason: str
    context: int
    tool_syntax: str | None
    source: str = ""


def card(model: Model, here: Here, *, header: Header, projectors: Sequence[Header] = ()) -> JsonObject:
    """The answer of `/api/show`. `header`, `projectors`: the model's, or with their arrays for a verbose answer."""
    shape: JsonObject = {}
    if model.licenses:
        shape["license"] = "\n".join(model.licenses)
    shape["modelfile"] = render_model(model)
    if parameters := parameter_lines(model.options):
        shape["parameters"] = parameters
    shape["template"] = _template(model)
    if model.system:
        shape["system"] = model.system
    details = Label.of(model)
    shape["details"] = _details(details)
    if model.messages:
        shape["messages"] = [{"role": message.role, "content": message.text} for message in model.messages]
    shape["model_info"] = _info(header)
    if projectors:
        shape["projector_info"] = _info(projectors[0])
    shape["tensors"] = [
        {"name": tensor.name, "type": tensor.type.name, "shape": list(tensor.shape)} for tensor in header.tensors
    ]
    shape["capabilities"] = list(details.capabilities)
    shape["modified_at"] = _rfc3339(model.modified)
    for key, value in (("renderer", model.config.renderer), ("parser", model.config.parser)):
        if value:
            shape[key] = value
    if model.rendered_by is not None:
        shape["rendered_by"] = model.rendered_by
    if model.unused is not None:
        shape["unused"] = model.unused
    if model.config.requires:
        shape["requires"] = model.config.requires
    shape["context_length"] = here.context
    if here.tool_syntax is not None:
        shape["tool_syntax"] = here.tool_syntax
    _, cut = cut_context(Options(), model, here.context)
    if ignored := (*model.ignored_parameters, *cut):
        shape["ignored_parameters"] = list(ignored)
    if here.source:
        shape["source"] = here.source
    shape["engine"] = here.engine
    shape["engine_reason"] = here.reason
    return shape


def card_items(model: Model, header: Header) -> int:
    """How much a card has, about: values, tensors, and lines of text."""
    arrays = sum(len(value) for value in header.metadata.values() if isinstance(value, tuple))
    texts = sum(map(len, (*model.licenses, model.system or "", model.go_template or "")))
    return arrays + len(header.tensors) + sum(len(message.content) for message in model.messages) + texts // 80


def _plain(value: JsonValue) -> JsonValue:
    """1.0 as Go writes it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def parameter_lines(options: Options) -> str:
    """One line a value: the name in 30 columns, texts quoted, numbers plain."""
    return "\n".join(
        f"{name:<30} {json.dumps(_plain(item), ensure_ascii=False)}"
        for name, value in options_to_json(options).items()
        for item in (value if isinstance(value, list) else [value])
    )


def _template(model: Model) -> str:
    """The one that makes prompts, where a renderer is named; else the model's template layer before the file's."""
    if model.config.renderer is not None:
        return model.chat_template or ""
    return model.go_template or model.chat_template or ""


def _details(known: Label) -> JsonObject:
    return {
        "parent_model": known.parent,
        "format": known.format,
        "family": known.family,
        "families": list(known.families),
        "parameter_size": known.parameter_size,
        "quantization_level": known.quantization,
    }


def _info(header: Header) -> JsonObject:
    info: JsonObject = {"general.parameter_count": header.parameter_count}
    for key, value in header.metadata.items():
        if key in _OUTSIDE_INFO:
            continue
        if isinstance(value, ArrayInfo):
            info[key] = None
        else:
            info[key] = [_finite(item) for item in value] if isinstance(value, tuple) else value
    return dict(sorted(info.items()))


def _finite(value: bool | int | float | str) -> JsonValue:
    """JSON has no word for what is no number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def estimate(model: Model, reckoned: Reckoning) -> JsonObject:
    """The answer of `/api/estimate`. Bytes; `num_ctx` tokens for each of `slots` requests at once."""
    parts = reckoned.estimate
    return {
        "model": model.name.short,
        "engine": reckoned.engine,
        "engine_reason": reckoned.reason,
        "num_ctx": reckoned.num_ctx,
        "slots": reckoned.slots,
        "weights": parts.weights,
        "cache": parts.cache,
        "compute": parts.compute,
        "total": parts.total,
        "available": reckoned.available,
        "fits": reckoned.fits,
        "largest_num_ctx": reckoned.largest,
        "least_slots": reckoned.least_slots,
    }
