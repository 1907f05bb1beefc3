"""Types of pydantic, as they are written: names of this module, which are looked up in it."""

# ruff: noqa: F401, F403

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import pathlib
import re
import typing
import uuid
import zoneinfo
from typing import Annotated, Any, Literal, NamedTuple, Union

import pydantic
from pydantic import *
from pydantic.networks import *
from pydantic.types import *
from typing_extensions import TypedDict

__all__ = ["KINDS", "MORE_THAN_IT_WRITES", "kind"]


class Color(str, enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: str | None = None


class Node(pydantic.BaseModel):
    value: int
    children: list[Node] = []


Item = typing.TypeVar("Item")


class Box(pydantic.BaseModel, typing.Generic[Item]):
    item: Item


class Closed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    a: int


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int


class Point(NamedTuple):
    x: int
    y: str = "q"


class Options(TypedDict, total=False):
    depth: int


@dataclasses.dataclass
class Record:
    a: int
    b: str = "x"


KINDS = (
    *("str", "int", "float", "bool", "None", "Any", "object", "bytes", "complex"),
    *(
        "EmailStr",
        "NameEmail",
        "Annotated[EmailStr, Field(max_length=50)]",
        "AnyUrl",
        "HttpUrl",
        "AnyHttpUrl",
        "FileUrl",
    ),
    *(
        "WebsocketUrl",
        "PostgresDsn",
        "RedisDsn",
        "uuid.UUID",
        "UUID1",
        "UUID3",
        "UUID4",
        "UUID5",
        "UUID6",
        "UUID7",
        "UUID8",
    ),
    *("dt.date", "dt.time", "dt.datetime", "dt.timedelta", "PastDate", "FutureDate", "PastDatetime", "FutureDatetime"),
    *("AwareDatetime", "NaiveDatetime", "zoneinfo.ZoneInfo", "decimal.Decimal"),
    *(
        "condecimal(max_digits=5, decimal_places=2, ge=0)",
        "fractions.Fraction",
        "pathlib.Path",
        "FilePath",
        "DirectoryPath",
    ),
    *("ipaddress.IPv4Address", "ipaddress.IPv6Address", "ipaddress.IPv4Network", "ipaddress.IPv6Network"),
    *("ipaddress.IPv4Interface", "ipaddress.IPv6Interface", "IPvAnyAddress", "IPvAnyNetwork", "IPvAnyInterface"),
    *("SecretStr", "SecretBytes", "PositiveInt", "NegativeFloat", "StrictInt", "FiniteFloat", "conint(gt=1, lt=9)"),
    *("conint(multiple_of=7)", "confloat(ge=0, le=1)", 'constr(min_length=2, max_length=5, pattern="^a")'),
    *(
        'Annotated[str, StringConstraints(pattern=r"^\\S+$", max_length=10)]',
        "conlist(int, min_length=1, max_length=3)",
    ),
    *("list[str]", "set[str]", "frozenset[int]", 'set[Literal["a", "b"]]', "set[Color]", "conset(bool, min_length=1)"),
    *('Literal["a", 1, None]', "Color", "Size", "Union[int, str, None]"),
    *("Annotated[Union[Cat, Dog], Field(discriminator='kind')]", "Union[Cat, Dog]", "dict[str, int]", "dict[int, str]"),
    *("dict[Color, int]", 'dict[Literal["a", "b"], int]', "dict[uuid.UUID, int]", "dict[str, Any]"),
    *("tuple[int, str]", "tuple[int, ...]", "Point", "Options", "Record", "Node", "Box[int]", "Closed", "Open"),
    *("Json", "Json[int]", "Base64Str", "Base64Bytes", "Base64UrlStr", "re.Pattern", "ByteSize", "JsonValue"),
    *("PaymentCardNumber", "collections.deque", "typing.Sequence[int]", "typing.Mapping[str, int]", "ImportString"),
    *("typing.Callable", "type"),
)

MORE_THAN_IT_WRITES = frozenset(
    {"HttpUrl", "AnyHttpUrl", "FileUrl", "WebsocketUrl", "PostgresDsn", "RedisDsn", "PastDate", "FutureDate"}
    | {"PastDatetime", "FutureDatetime", "NaiveDatetime", "decimal.Decimal", "FilePath", "DirectoryPath", "complex"}
    | {"condecimal(max_digits=5, decimal_places=2, ge=0)", "Base64Str", "Base64Bytes", "Base64UrlStr", "ByteSize"}
    | {"PaymentCardNumber", "ImportString", "dict[int, str]"}
)
"""What pydantic checks of a value and does not write into its JSON Schema."""


def kind(code: str) -> Any:
    """The type that is written so."""
    return eval(code, globals())
