"""What the metadata of a GGUF file is made of: types, scalars, arrays. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias


class ValueType(Enum):
    """Types of metadata. `value` is the number in files."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


Scalar: TypeAlias = "bool | int | float | str"


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """An array that was walked. `values`: its elements, if they are few numbers (KEPT_NUMBERS).

    `longest`: the bytes of its longest text, where it is a vocabulary.
    """

    type: ValueType
    count: int
    values: tuple[bool | int | float, ...] | None = None
    longest: int = field(default=0, compare=False)


MetadataValue: TypeAlias = "Scalar | ArrayInfo | tuple[Scalar, ...]"


def texts_of(value: MetadataValue | None) -> int | None:
    """How many texts an array holds; None when it is no array of texts."""
    if isinstance(value, ArrayInfo):
        return value.count if value.type is ValueType.STRING else None
    return len(value) if isinstance(value, tuple) and all(isinstance(item, str) for item in value) else None


def numbers_of(value: MetadataValue | None) -> int | None:
    """How many numbers an array holds; None when it is no array of numbers."""
    if isinstance(value, ArrayInfo):
        return None if value.type in {ValueType.STRING, ValueType.BOOL} else value.count
    plain = isinstance(value, tuple) and all(isinstance(item, int | float) and item is not True for item in value)
    return len(value) if plain and isinstance(value, tuple) else None


def in_words(value: object) -> str:
    """A value as an error shows it."""
    match value:
        case None:
            return "missing"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str():
            return f"the text {value[:40]!r}"
        case _:
            return "a list"
