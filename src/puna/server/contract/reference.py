"""A dialect's contract as a page: one table a shape, one line a field. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from puna.server.contract.shapes import (
    Honoured,
    JsonValue,
    Mark,
    Refused,
    Reported,
    Shape,
    ShapeField,
    shape_fields,
)


def tables(bodies: Sequence[type[Shape]]) -> str:
    """Every body, then every shape inside them."""
    parts = [_section(f"`{(shape.__doc__ or '').strip()}`", shape) for shape in bodies]
    parts.append("# Objects inside requests\n")
    parts += [_section(shape.__name__, shape) for shape in nested_shapes(bodies)]
    return "\n".join(parts)


def nested_shapes(bodies: Sequence[type[Shape]]) -> list[type[Shape]]:
    """Shapes that bodies are made of, each once, as they are met."""
    met: dict[type[Shape], None] = {}
    for body in bodies:
        _meet(body, met)
    return [shape for shape in met if shape not in bodies]


def _meet(shape: type[Shape], met: dict[type[Shape], None]) -> None:
    if shape in met:
        return
    met[shape] = None
    for info in shape.model_fields.values():
        for inner in _shapes_in(info.annotation):
            _meet(inner, met)


def _shapes_in(annotation: object) -> Iterator[type[Shape]]:
    if isinstance(annotation, type) and issubclass(annotation, Shape):
        yield annotation
    for argument in get_args(annotation):
        yield from _shapes_in(argument)


def _section(title: str, shape: type[Shape]) -> str:
    lines = [f"## {title}\n", "| field | type | | meaning |", "|---|---|---|---|"]
    inherited = [row for row in shape_fields(shape) if row.attribute not in shape.__annotations__]
    own = [row for row in shape_fields(shape) if row not in inherited]
    lines += [_line(row, shape.model_fields[row.attribute]) for row in own + inherited]
    return "\n".join(lines) + "\n"


def _line(row: ShapeField, info: FieldInfo) -> str:
    name = f"`{row.name}`" + (" *required*" if row.required else "")
    meaning = row.mark.meaning if row.mark is not None else "Tells which object this is."
    return f"| {name} | {_field_type(info)} | {_class(row.mark)} | {_cell(meaning)}{_harmless(row.mark)} |"


def _class(mark: Mark | None) -> str:
    match mark:
        case Refused():
            return "refused"
        case Reported():
            return "reported"
        case Honoured() | None:
            return "honoured"
        case _:
            raise AssertionError(mark)


def _harmless(mark: Mark | None) -> str:
    match mark:
        case Refused(_, (_, *_) as values):
            return f" Accepted: {_values(values)}."
        case Reported(_, (_, *_) as values):
            return f" Silent: {_values(values)}."
        case _:
            return ""


def _values(values: Sequence[JsonValue]) -> str:
    words = {True: "true", False: "false"}
    return ", ".join(f"`{words[value] if isinstance(value, bool) else value}`" for value in values)


def _field_type(info: FieldInfo) -> str:
    text = _type(info.annotation)
    bounds = _bounds(info.metadata)
    return _cell(f"{text}, {bounds}" if bounds else text)


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, bounds = _type(arguments[0]), _bounds(_flat(arguments[1:]))
        return f"{inner} ({bounds})" if bounds else inner
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(_type(one) for one in arguments if one is not NoneType))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is list:
        return f"array of {_type(arguments[0])}"
    if origin is dict:
        return "object"
    if isinstance(annotation, type) and issubclass(annotation, Shape):
        return annotation.__name__
    return {str: "string", int: "integer", float: "number", bool: "boolean"}.get(annotation, "any")


def _flat(metadata: tuple[Any, ...]) -> list[Any]:
    return [item for one in metadata for item in (one.metadata if isinstance(one, FieldInfo) else [one])]


def _bounds(metadata: list[Any]) -> str:
    """Bounds in words, none for none."""
    least: Any = None
    most: Any = None
    lengths: list[str] = []
    for item in metadata:
        match item:
            case annotated_types.Gt(gt=bound):
                lengths.append(f"over {bound}")
            case annotated_types.Ge(ge=bound):
                least = bound
            case annotated_types.Le(le=bound):
                most = bound
            case annotated_types.MinLen(min_length=bound) if bound:
                lengths.append(f"at least {bound} long")
            case annotated_types.MaxLen(max_length=bound):
                lengths.append(f"at most {bound} long")
    return ", ".join(([_range(least, most)] if (least, most) != (None, None) else []) + lengths)


def _range(least: Any, most: Any) -> str:
    if most is None:
        return f"from {least}"
    powers = {2**31 - 1: "2³¹-1", 2**63 - 1: "2⁶³-1", -(2**63): "-2⁶³"}
    return f"{powers.get(least, least)} to {powers.get(most, most)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
