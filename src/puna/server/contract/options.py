"""What every dialect reads alike of a request: options, and how long a model stays loaded. Pure."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, cast

from pydantic import Discriminator, Field, Tag

from puna.errors import InvalidRequest
from puna.model.parameters import LOAD_PARAMETERS, PARAMETERS, options_from_json, options_to_json
from puna.server.contract.shapes import UNION
from puna.settings import parse_duration
from puna.types import JsonObject, Options


def _string_or_number(value: object) -> str | None:
    if isinstance(value, bool):
        return None
    return "string" if isinstance(value, str) else "number" if isinstance(value, int | float) else None


KeepAlive: TypeAlias = Annotated[
    Annotated[str, Tag("string")] | Annotated[float, Tag("number")],
    Discriminator(_string_or_number, custom_error_type=UNION, custom_error_message="a number of seconds or a duration"),
]


def within(name: str) -> Any:
    """The bounds of the parameter of this name, for a field that means the same."""
    parameter = PARAMETERS[name]
    return Field(ge=parameter.least, le=parameter.most)


def read_options(value: object, *, path: str = "options", loading: bool = False) -> tuple[Options, tuple[str, ...]]:
    """Options of an object, and the paths of those without effect. InvalidRequest names `options.<key>`.

    `loading`: only the settings of loading count, since nothing is generated; the others have no effect.
    """
    options, ignored = options_from_json(cast("JsonObject", value or {}), param=path)
    if loading:
        said = [name for name in cast("JsonObject", value or {}) if getattr(options, name, None) is not None]
        ignored = (*ignored, *(name for name in said if name not in LOAD_PARAMETERS))
    return options, tuple(f"{path}.{name}" for name in sorted(ignored))


def overruled(options: Options, said: Options) -> tuple[str, ...]:
    """The paths of those of `options` that a field of the request wins over, since it says something else."""
    other = options_to_json(said)
    return tuple(
        f"options.{name}" for name, value in options_to_json(options).items() if other.get(name, value) != value
    )


def duration(text: str) -> float:
    """Seconds of Go's duration text, or of a number of them. ValueError if it is neither."""
    return float(text) if text.replace(".", "", 1).isdecimal() and text.isascii() else parse_duration(text)


def read_keep_alive(value: str | float | None) -> float | None:
    """Seconds from a number of seconds or Go's duration text; negative means for ever, None leaves it as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except ValueError as error:
        raise InvalidRequest(str(error), param="keep_alive") from error
