"""How a request contract is written down: Pydantic shapes whose every field carries a mark.

    Honoured   it does what its dialect says it does
    Refused    it cannot be done here: 400, unless the value asks for nothing (`harmless`)
    Reported   accepted without effect, and named in the `x-puna-ignored` header, unless the value is `harmless`

Requests are checked from these shapes, and the references of fields in the docs are generated from them. A null is an
absent field, on every level.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated, TypeAlias, cast

import pydantic
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema

JsonValue: TypeAlias = pydantic.JsonValue
JsonObject: TypeAlias = dict[str, JsonValue]

Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]

UNION = "one_of"
"""The error type of a union that no choice fits; its message says what is expected."""


def type_of(value: object) -> str | None:
    """The `type` that an object of a request says, by which a union chooses; None where it says none in words."""
    said = cast("dict[str, object]", value).get("type") if isinstance(value, dict) else None
    return said if isinstance(said, str) else None


@dataclass(frozen=True, slots=True)
class Mark:
    """What becomes of a field. `meaning`: one line for the reference."""

    meaning: str


@dataclass(frozen=True, slots=True)
class Honoured(Mark):
    pass


@dataclass(frozen=True, slots=True)
class Reported(Mark):
    harmless: tuple[JsonValue, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused(Mark):
    harmless: tuple[JsonValue, ...] = ()


class Shape(BaseModel):
    """One JSON object of a request. Strict: a number is no text and a text no number. Fields match exactly."""

    model_config = ConfigDict(
        strict=True, extra="allow", allow_inf_nan=False, frozen=True, protected_namespaces=(), defer_build=True
    )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        """The first fault of a list is enough: gathering one for each element costs minutes and gigabytes."""
        schema = handler(source)
        _fail_fast(schema)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: object) -> object:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


def build(*shapes: type[Shape]) -> None:
    """Make what these are checked by now, and not when the first request comes: for tens of milliseconds, nothing else
    runs meanwhile."""
    for shape in shapes:
        shape.model_rebuild()


_GATHERING = frozenset({"list", "tuple", "set", "frozenset", "dict"})
"""Types of Pydantic's core schemas that look at all their members, whatever is wrong with the first."""


def _fail_fast(schema: object) -> None:
    """Let everything inside of a core schema that gathers faults stop at the first."""
    if isinstance(schema, dict):
        kind = schema.get("type")
        if isinstance(kind, str) and kind in _GATHERING:
            schema["fail_fast"] = True
        for key, inner in schema.items():
            if key not in {"metadata", "serialization"}:
                _fail_fast(inner)
    elif isinstance(schema, list | tuple):
        for inner in schema:
            _fail_fast(inner)


@dataclass(frozen=True, slots=True)
class ShapeField:
    """One field of a shape: `attribute` in Python, `name` in JSON."""

    attribute: str
    name: str
    mark: Mark | None
    required: bool


@cache
def shape_fields(shape: type[Shape]) -> tuple[ShapeField, ...]:
    """The fields of a shape in their order. A discriminator (`type`, `role`) has no mark."""
    return tuple(
        ShapeField(
            attribute=attribute,
            name=info.alias or attribute,
            mark=next((item for item in info.metadata if isinstance(item, Mark)), None),
            required=info.is_required(),
        )
        for attribute, info in shape.model_fields.items()
    )
