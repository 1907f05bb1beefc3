"""What `think` means to a template. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from puna.template.facts import TemplateFacts
from puna.types import JsonValue, Think

_LEVELS = {"minimal": "low", "max": "high"}
"""Levels that templates do not know, to the nearest that they do."""


def think_arguments(
    think: Think | None, given: Mapping[str, JsonValue], facts: TemplateFacts
) -> tuple[dict[str, JsonValue], tuple[str, ...]]:
    """The template's arguments, the caller's own first, and what has no effect."""
    if think is None:
        return dict(given), ()
    arguments: dict[str, JsonValue] = {"enable_thinking": think is not False, "thinking": think is not False}
    if isinstance(think, str):
        arguments["reasoning_effort"] = _LEVELS.get(think, think)
    return {**arguments, **given}, () if _works(think, facts) else ("think",)


def _works(think: Think, facts: TemplateFacts) -> bool:
    if isinstance(think, str):
        return facts.effort
    return facts.switch or (think is (facts.thinking is not None))
