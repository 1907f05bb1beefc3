"""What lists of models tell: those that are here, those in memory, and who waits for one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from puna.client.fields import integer_of, moment_of, object_of, text_of

if TYPE_CHECKING:
    from puna.types import JsonObject


@dataclass(frozen=True, slots=True)
class Details:
    """What kind of model it is. Texts as the server words them ('134.52M', 'Q4_1')."""

    family: str = ""
    parameter_size: str = ""
    quantization_level: str = ""

    @classmethod
    def read(cls, holder: JsonObject) -> Details:
        details = object_of(holder, "details")
        return cls(
            text_of(details, "family"), text_of(details, "parameter_size"), text_of(details, "quantization_level")
        )


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A line of `puna list`. `digest`: 64 hex characters; `size`: bytes."""

    name: str
    digest: str
    size: int
    modified: datetime
    details: Details
    remote: bool = False

    @classmethod
    def read(cls, item: JsonObject) -> ModelSummary:
        return cls(
            name=text_of(item, "name"),
            digest=text_of(item, "digest"),
            size=integer_of(item, "size") or 0,
            modified=moment_of(item, "modified_at"),
            details=Details.read(item),
            remote=bool(text_of(item, "remote_model")),
        )


@dataclass(frozen=True, slots=True)
class RunningModel:
    """A line of `puna ps`. `engine` and `engine_reason` are empty when the server does not tell."""

    name: str
    digest: str
    size: int
    size_vram: int
    num_ctx: int
    expires: datetime
    engine: str = ""
    engine_reason: str = ""

    @classmethod
    def read(cls, item: JsonObject) -> RunningModel:
        return cls(
            name=text_of(item, "name"),
            digest=text_of(item, "digest"),
            size=integer_of(item, "size") or 0,
            size_vram=integer_of(item, "size_vram") or 0,
            num_ctx=integer_of(item, "context_length") or 0,
            expires=moment_of(item, "expires_at"),
            engine=text_of(item, "engine"),
            engine_reason=text_of(item, "engine_reason"),
        )


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """One that waits for a model. `state`: `queued` or `loading`."""

    model: str
    state: str
    seconds: float

    @classmethod
    def read(cls, item: JsonObject) -> WaitingRequest:
        waited = item.get("waited")
        seconds = float(waited) if isinstance(waited, int | float) else 0.0
        return cls(text_of(item, "model"), text_of(item, "state"), seconds)
