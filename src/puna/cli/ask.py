"""What `run` was asked: its arguments, and the fields of a request that they become. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from puna.cli.flags import WrongUsage
from puna.settings import parse_duration
from puna.types import JsonObject, JsonValue

LEVELS = ("high", "medium", "low", "max")
"""How hard a model may be told to think."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The arguments of `run`. `words`: the prompt of the command line; `piped`: of stdin. '' when there is none."""

    model: str
    words: str = ""
    piped: str = ""
    interactive: bool = False
    keep_alive: str | None = None
    verbose: bool = False
    insecure: bool = False
    word_wrap: bool = True
    format: str = ""
    think: str | None = None
    hide_thinking: bool = False
    truncate: bool | None = None
    dimensions: int = 0

    @property
    def prompt(self) -> str:
        return " ".join(part for part in (self.piped, self.words) if part)


def shared_fields(ask: Ask) -> JsonObject:
    """What every request of this run carries. A flag that cannot be read is refused before anything starts."""
    fields: JsonObject = {}
    if ask.keep_alive is not None:
        try:
            parse_duration(ask.keep_alive)
        except ValueError as error:
            raise WrongUsage(f"invalid value for --keepalive: {error}") from error
        fields["keep_alive"] = ask.keep_alive
    if ask.format:
        fields["format"] = read_format(ask.format)
    if ask.think is not None:
        fields["think"] = read_think(ask.think)
    return fields


def read_format(text: str) -> JsonValue:
    """'json', or a JSON Schema as text."""
    if text == "json":
        return "json"
    try:
        schema: JsonValue = json.loads(text)
    except ValueError as error:
        raise WrongUsage(f"invalid value for --format: neither json nor a JSON Schema ({error})") from error
    if not isinstance(schema, dict):
        raise WrongUsage("invalid value for --format: a JSON Schema is an object")
    return schema


def read_think(text: str) -> bool | str:
    if text in {"true", "false"}:
        return text == "true"
    if text in LEVELS:
        return text
    raise WrongUsage(f'invalid value for --think: "{text}" (must be true, false, high, medium, low, or max)')
