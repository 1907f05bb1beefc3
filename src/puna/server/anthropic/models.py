"""Models in Anthropic's form, and pages of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timezone

from puna.errors import InvalidRequest
from puna.model.capabilities import Capability
from puna.model.listed import Listed
from puna.state.records import Query
from puna.types import JsonObject, JsonValue


def model_json(model: Listed, id_: str, context: int) -> JsonObject:
    """A model; `context`: tokens of a request to it that asks for no `num_ctx`."""
    modified = model.modified.astimezone(timezone.utc)
    return {
        "type": "model",
        "id": id_,
        "display_name": id_,
        "created_at": modified.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "lifecycle": "active",
        "line": None,
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": context,
        "max_tokens": context,
        "capabilities": _capabilities(model),
    }


def _capabilities(model: Listed) -> JsonObject:
    thinks = Capability.THINKING.value in model.label.capabilities
    no: JsonObject = {"supported": False}
    return {
        "batch": {"supported": True},
        "citations": no,
        "code_execution": no,
        "context_management": no,
        "effort": {"supported": thinks, **{level: _can(thinks) for level in ("low", "medium", "high", "max", "xhigh")}},
        "image_input": _can(Capability.VISION.value in model.label.capabilities),
        "pdf_input": {"supported": True},
        "server_tools": {"supported": False, "code_execution": no, "web_search": no},
        "structured_outputs": {"supported": True},
        "thinking": {
            "supported": thinks,
            "types": {
                "adaptive": _can(thinks),
                "between_tools": no,
                "disabled": {"supported": True},
                "enabled": _can(thinks),
            },
        },
    }


def _can(supported: bool) -> JsonObject:
    return {"supported": supported}


def page_of(models: Sequence[JsonObject], query: Query) -> JsonObject:
    """The models that are asked for, in their order. InvalidRequest names an id that is none of theirs."""
    assert query.limit is not None
    if query.before is not None:
        shown = models[: _place(models, query.before, "before_id")]
        page = shown[-query.limit :]
    else:
        shown = models[0 if query.after is None else _place(models, query.after, "after_id") + 1 :]
        page = shown[: query.limit]
    data: list[JsonValue] = [*page]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {"data": data, "has_more": len(shown) > len(page), "first_id": first, "last_id": last}


def _place(models: Sequence[JsonObject], id_: str, param: str) -> int:
    for place, model in enumerate(models):
        if model["id"] == id_:
            return place
    raise InvalidRequest(f"Invalid '{param}': there is no model '{id_[:100]}'.", param=param)
