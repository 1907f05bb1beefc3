"""What `think` means to a template. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from puna.template.facts import COMMON_LEVELS, TemplateFacts
from puna.types import JsonValue, Level, Think

_ORDER: tuple[Level, ...] = get_args(Level)


def think_arguments(
    think: Think | None, given: Mapping[str, JsonValue], facts: TemplateFacts
) -> tuple[dict[str, JsonValue], tuple[str, ...]]:
    """The template's arguments, the caller's own first, and what has no effect."""
    if think is None:
        return dict(given), ()
    arguments: dict[str, JsonValue] = {"enable_thinking": think is not False, "thinking": think is not False}
    if isinstance(think, str):
        arguments["reasoning_effort"] = nearest(think, facts.levels or COMMON_LEVELS)
    return {**arguments, **given}, () if _works(think, facts) else ("think",)


def nearest(level: Level, known: Sequence[Level]) -> Level:
    """Of the levels that a template knows the nearest; of two the weaker."""
    place = _ORDER.index(level)
    return min(known, key=lambda one: (abs(_ORDER.index(one) - place), _ORDER.index(one)))


def _works(think: Think, facts: TemplateFacts) -> bool:
    if isinstance(think, str):
        return bool(facts.levels)
    return facts.switch or (think is (facts.thinking is not None))
