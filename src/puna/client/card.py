"""What a server tells of one model: its card, and what it would take of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from puna.client.fields import integer_of, object_of, objects_of, text_of
from puna.client.models import Details

if TYPE_CHECKING:
    from puna.types import JsonObject


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What `/api/show` tells. `info` holds the file's metadata, with None for arrays that were left out."""

    license: str
    modelfile: str
    parameters: str
    template: str
    system: str
    details: Details
    capabilities: tuple[str, ...]
    info: JsonObject
    projector: JsonObject
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]
    messages: tuple[tuple[str, str], ...]
    tool_syntax: str = ""
    source: str = ""
    engine: str = ""
    engine_reason: str = ""
    rendered_by: str = ""
    unused: str = ""

    @classmethod
    def read(cls, answer: JsonObject) -> ModelCard:
        capabilities = answer.get("capabilities")
        return cls(
            license=text_of(answer, "license"),
            modelfile=text_of(answer, "modelfile"),
            parameters=text_of(answer, "parameters"),
            template=text_of(answer, "template"),
            system=text_of(answer, "system"),
            details=Details.read(answer),
            capabilities=tuple(str(word) for word in capabilities) if isinstance(capabilities, list) else (),
            info=object_of(answer, "model_info"),
            projector=object_of(answer, "projector_info"),
            tensors=tuple(_tensor(item) for item in objects_of(answer, "tensors")),
            messages=tuple(
                (text_of(item, "role"), text_of(item, "content")) for item in objects_of(answer, "messages")
            ),
            tool_syntax=text_of(answer, "tool_syntax"),
            source=text_of(answer, "source"),
            engine=text_of(answer, "engine"),
            engine_reason=text_of(answer, "engine_reason"),
            rendered_by=text_of(answer, "rendered_by"),
            unused=text_of(answer, "unused"),
        )


def _tensor(item: JsonObject) -> tuple[str, str, tuple[int, ...]]:
    shape = item.get("shape")
    sides = tuple(side for side in shape if isinstance(side, int)) if isinstance(shape, list) else ()
    return text_of(item, "name"), text_of(item, "type"), sides


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a model would take, in bytes. `largest_num_ctx`: for each of `least_slots` requests at once; None
    where no context would fit.
    """

    model: str
    engine: str
    num_ctx: int
    slots: int
    weights: int
    cache: int
    compute: int
    total: int
    available: int
    fits: bool
    largest_num_ctx: int | None
    least_slots: int

    @classmethod
    def read(cls, answer: JsonObject) -> MemoryNeed:
        numbers = {
            key: integer_of(answer, key) or 0
            for key in ("num_ctx", "slots", "weights", "cache", "compute", "total", "available", "least_slots")
        }
        return cls(
            model=text_of(answer, "model"),
            engine=text_of(answer, "engine"),
            fits=answer.get("fits") is True,
            largest_num_ctx=integer_of(answer, "largest_num_ctx"),
            **numbers,
        )
