"""How much a model thinks: one setting under three names. Its contract, and what it becomes. Pure."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Tag

from puna.errors import InvalidRequest
from puna.server.contract.shapes import UNION, Honoured, Shape
from puna.types import Think

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


def _switch_or_level(value: object) -> str | None:
    return "switch" if isinstance(value, bool) else "level" if isinstance(value, str) else None


ThinkSetting: TypeAlias = Annotated[
    Annotated[bool, Tag("switch")] | Annotated[Literal["minimal", "low", "medium", "high", "max"], Tag("level")],
    Discriminator(_switch_or_level, custom_error_type=UNION, custom_error_message="a boolean or a level"),
]


class ReasoningSetting(Shape):
    effort: Annotated[Effort | None, Honoured("As `reasoning_effort`.")] = None


class Thinking(Shape):
    """Fields of a request that say how much to think."""

    reasoning_effort: Annotated[Effort | None, Honoured("How much a thinking model thinks; none: not at all.")] = None
    think: Annotated[ThinkSetting | None, Honoured("Ollama's form of `reasoning_effort`; false: no thinking.")] = None
    reasoning: Annotated[ReasoningSetting | None, Honoured("Another form of `reasoning_effort`.")] = None


def to_think(body: Thinking) -> tuple[Think | None, dict[str, str]]:
    """The setting, and what this request calls it."""
    nested = None if body.reasoning is None else body.reasoning.effort
    wishes: dict[str, Think] = {}
    for name, effort in (("reasoning_effort", body.reasoning_effort), ("reasoning.effort", nested)):
        if effort is not None:
            wishes[name] = False if effort == "none" else "max" if effort == "xhigh" else effort
    if body.think is not None:
        wishes["think"] = body.think
    if len({str(wish) for wish in wishes.values()}) > 1:
        names = " and ".join(f"'{name}'" for name in wishes)
        raise InvalidRequest(f"{names} are the same setting, but were given different values.", param=[*wishes][-1])
    name, think = next(iter(wishes.items()), ("reasoning_effort", None))
    return think, {"think": name}
