"""Parameters: Ollama's names for Options, as JSON and as Modelfile text. Pure.

One table row a parameter: its kind and its bounds. A wrong type or a value out of bounds is an InvalidRequest
that names it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Literal

from puna.errors import InvalidRequest
from puna.types import NO_OPTIONS, JsonObject, JsonValue, Options

Kind = Literal["int", "float", "bool", "texts"]

_INT32 = 2**31 - 1
_MOST = 100
"""Of settings that are not shares: far beyond use, and far from where an engine's arithmetic overflows."""


MOST_NUM_CTX = 2**63 - 1

MOST_STOPS = 256
LONGEST_STOP = 1_000
"""Characters. Each piece of an answer is held against all stop strings, and what may become one is held back."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """Bounds are inclusive; without one, any finite number will do."""

    name: str
    kind: Kind
    least: float = -sys.float_info.max
    most: float = sys.float_info.max


_ROWS = (
    # One beyond what the model was trained on is cut to that, so any is beyond.
    Parameter("num_ctx", "int", 1, MOST_NUM_CTX),
    Parameter("num_batch", "int", 1, _INT32),
    Parameter("num_thread", "int", 0, 4096),
    Parameter("num_gpu", "int", -1, _INT32),
    Parameter("main_gpu", "int", 0, _INT32),
    Parameter("use_mmap", "bool"),
    Parameter("num_predict", "int", -2, _INT32),
    Parameter("num_keep", "int", -1, _INT32),
    Parameter("stop", "texts"),
    Parameter("seed", "int", -(2**63), 2**64 - 1),
    Parameter("temperature", "float", 0, _MOST),
    Parameter("top_k", "int", -1, _INT32),
    Parameter("top_p", "float", 0, 1),
    Parameter("min_p", "float", 0, 1),
    Parameter("typical_p", "float", 0, 1),
    Parameter("repeat_last_n", "int", -1, _INT32),
    # Logits are divided by it.
    Parameter("repeat_penalty", "float", 0.01, _MOST),
    Parameter("presence_penalty", "float", -_MOST, _MOST),
    Parameter("frequency_penalty", "float", -_MOST, _MOST),
    Parameter("mirostat", "int", 0, 2),
    Parameter("mirostat_tau", "float", 0, _MOST),
    Parameter("mirostat_eta", "float", 0, _MOST),
)

PARAMETERS: Mapping[str, Parameter] = {row.name: row for row in _ROWS}
"""Every parameter that has an effect. The names are those of fields of Options."""

LOAD_PARAMETERS = frozenset({"num_ctx", "num_batch", "num_thread", "num_gpu", "main_gpu", "use_mmap"})
"""Those of loading a model; the others are of generating."""

OBSOLETE = frozenset(
    {
        *("penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", "embedding_only"),
        *("numa", "num_gqa", "rope_frequency_base", "rope_frequency_scale", "tfs_z", "draft_num_predict"),
    }
)
"""Names that Ollama knows or knew, and that have no effect here: accepted and reported, never refused."""


IDLE = frozenset({"num_keep"})
"""Parameters that are read and kept, and have no effect with any engine: a context that is full ends the answer."""


def parse_parameter(name: str, text: str) -> JsonValue:
    """The JSON value of a Modelfile's `PARAMETER name text`; for `stop` a list of one.

    An unknown name or a value of another kind is an InvalidRequest. An OBSOLETE name gives its text unread.
    """
    if name in OBSOLETE:
        return text
    row = PARAMETERS.get(name)
    if row is None:
        raise InvalidRequest(f"unknown parameter '{name}'", param=name)
    try:
        value = _PARSERS[row.kind](text)
    except ValueError as error:
        raise InvalidRequest(f"invalid {row.kind} value [{text}] of parameter '{name}'", param=name) from error
    _checked(row, value, name)
    return value


def options_from_json(shape: Mapping[str, JsonValue], *, param: str = "options") -> tuple[Options, tuple[str, ...]]:
    """Options, and the names that did not count as they were said, sorted. Nulls count as absent.

    These are unknown or obsolete, or fractions where a whole number stands, which are cut as Ollama cuts them.
    InvalidRequest names the field, such as `options.num_ctx`.
    """
    said: dict[str, bool | int | float | tuple[str, ...]] = {}
    ignored: list[str] = []
    for name, value in shape.items():
        row = PARAMETERS.get(name)
        if value is None:
            continue
        if row is None:
            ignored.append(name)
        else:
            said[name] = _checked(row, value, f"{param}.{name}")
            ignored += [name] if _cut(row, value) else []
    return _options(said), tuple(sorted(ignored))


def stored_options(shape: Mapping[str, JsonValue]) -> tuple[Options, tuple[str, ...]]:
    """Like `options_from_json`, for a model that is already stored: what has no effect is named, never refused."""
    options = NO_OPTIONS
    ignored: list[str] = []
    for name, value in shape.items():
        one, unused = _stored(name, value)
        options = one.over(options)
        ignored += unused
    return options, tuple(sorted({*ignored, *(IDLE & shape.keys())}))


def _stored(name: str, value: JsonValue) -> tuple[Options, tuple[str, ...]]:
    if name == "num_ctx" and type(value) is int:
        value = min(value, MOST_NUM_CTX)  # cut to what the model was trained on in any case, and reported
    try:
        return options_from_json({name: value})
    except InvalidRequest:
        return NO_OPTIONS, (name,)


def options_to_json(options: Options) -> JsonObject:
    """What was said, under Ollama's names. Fields that it has no name for are left out."""
    shape: JsonObject = {}
    for name in PARAMETERS:
        value = getattr(options, name)
        if value is not None:
            shape[name] = list(value) if isinstance(value, tuple) else value
    return shape


def _options(said: Mapping[str, bool | int | float | tuple[str, ...]]) -> Options:
    if not said:
        return NO_OPTIONS
    known = {field.name for field in fields(Options)}
    assert said.keys() <= known
    return Options(**said)  # type: ignore[arg-type]  # each row's kind is that of its field; a test holds them together


def _checked(row: Parameter, value: JsonValue, param: str) -> bool | int | float | tuple[str, ...]:
    match row.kind:
        case "bool":
            if isinstance(value, bool):
                return value
            raise _wrong(param, value, "a boolean")
        case "texts":
            return _texts(value, param)
        case "int":
            return _within(row, _whole(value, param), param)
        case "float":
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise _wrong(param, value, "a number")
            return float(_within(row, value, param))


def _whole(value: JsonValue, param: str) -> int:
    """JavaScript clients send 4096.0 for 4096; a real fraction is cut."""
    if isinstance(value, float) and isfinite(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(param, value, "a whole number")
    return value


def _cut(row: Parameter, value: JsonValue) -> bool:
    return row.kind == "int" and isinstance(value, float) and not value.is_integer()


def _within(row: Parameter, value: float, param: str) -> int | float:
    # Not a number compares as false, and so is refused too.
    if not row.least <= value <= row.most:
        raise _wrong(param, value, f"a number from {_shown(row.least)} to {_shown(row.most)}")
    return value


def _texts(value: JsonValue, param: str) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if isinstance(items, list) and len(items) > MOST_STOPS:
        raise InvalidRequest(f"{param} has {len(items)} texts; at most {MOST_STOPS} are looked for", param=param)
    if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
        raise _wrong(param, value, "a text or a list of texts, none of them empty")
    if any(len(item) > LONGEST_STOP for item in items if isinstance(item, str)):
        raise InvalidRequest(f"a text of {param} has more than {LONGEST_STOP} characters", param=param)
    return tuple(str(item) for item in items)


def _wrong(param: str, value: object, expected: str) -> InvalidRequest:
    return InvalidRequest(f"invalid value {value!r:.100} for {param}: expected {expected}", param=param)


def _parse_bool(text: str) -> bool:
    if text in {"1", "t", "T", "TRUE", "true", "True"}:
        return True
    if text in {"0", "f", "F", "FALSE", "false", "False"}:
        return False
    raise ValueError(text)


_PARSERS: Mapping[Kind, Callable[[str], JsonValue]] = {
    "int": int,
    "float": float,
    "bool": _parse_bool,
    "texts": lambda text: [text],
}


def _shown(bound: float) -> str:
    """A bound with all its digits."""
    return str(bound) if isinstance(bound, int) else f"{bound:g}"
