"""How a request contract is written down: Pydantic shapes whose every field carries a mark.

    Honoured   it does what OpenAI says it does
    Refused    it cannot be done here: 400, unless the value asks for nothing (`harmless`)
    Reported   accepted without effect, and named in the `x-puna-ignored` header, unless the value is `harmless`

Requests are checked from these shapes, and `docs/reference/openai.md` is generated from them. A null is an absent
field, on every level. A field that no shape knows is reported, or refused (`unknown_parameter`) in strict mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, TypeAlias, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from puna.errors import InvalidRequest, Unsupported
from puna.server.openai.invalid import invalid_request
from puna.types import JsonObject

JsonValue: TypeAlias = pydantic.JsonValue

Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


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
    """One JSON object of a request."""

    model_config = ConfigDict(
        strict=True, extra="allow", allow_inf_nan=False, frozen=True, protected_namespaces=(), defer_build=True
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: object) -> object:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


@dataclass(frozen=True, slots=True)
class Row:
    """One field of a shape: `attribute` in Python, `name` in JSON."""

    attribute: str
    name: str
    mark: Mark | None
    required: bool


@cache
def rows(shape: type[Shape]) -> tuple[Row, ...]:
    """The fields of a shape in their order. A discriminator (`type`, `role`) has no mark."""
    return tuple(
        Row(
            attribute=attribute,
            name=info.alias or attribute,
            mark=next((item for item in info.metadata if isinstance(item, Mark)), None),
            required=info.is_required(),
        )
        for attribute, info in shape.model_fields.items()
    )


@dataclass(slots=True)
class Findings:
    """Paths of fields that have no effect (`reported`) and that nobody knows (`unknown`)."""

    reported: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


Body = TypeVar("Body", bound=Shape)


def read_body(shape: type[Body], data: JsonObject, *, strict: bool) -> tuple[Body, list[str]]:
    """A checked request, and the paths of its fields that have no effect. InvalidRequest names the field at fault."""
    try:
        body = shape.model_validate(data)
    except ValidationError as error:
        raise invalid_request(error, data) from None
    findings = Findings()
    _examine(body, "", findings)
    if strict and findings.unknown:
        path = findings.unknown[0]
        raise InvalidRequest(f"Unknown parameter: '{path}'.", param=path, code="unknown_parameter")
    return body, findings.reported + findings.unknown


def _examine(shape: Shape, prefix: str, findings: Findings) -> None:
    findings.unknown += [f"{prefix}{name}" for name in shape.model_extra or ()]
    for row in rows(type(shape)):
        if row.attribute not in shape.model_fields_set:
            continue
        value = getattr(shape, row.attribute)
        path = f"{prefix}{row.name}"
        match row.mark:
            case Refused(meaning, harmless) if value not in harmless:
                raise Unsupported(f"Unsupported parameter: '{path}'. {meaning}", param=path)
            case Reported(_, harmless) if value not in harmless:
                findings.reported.append(path)
        for inner, inner_path in _shapes(value, path):
            _examine(inner, f"{inner_path}.", findings)


def _shapes(value: object, path: str) -> Iterator[tuple[Shape, str]]:
    match value:
        case Shape():
            yield value, path
        case list():
            for index, item in enumerate(value):
                yield from _shapes(item, f"{path}[{index}]")
