"""How much a model thinks: one setting under three names. Its contract, and what it becomes. Pure."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

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


Budget: TypeAlias = Annotated[int, Field(ge=0, le=2**31 - 1)]


class ReasoningSetting(Shape):
    effort: Annotated[Effort | None, Honoured("As `reasoning_effort`.")] = None
    max_tokens: Annotated[Budget | None, Honoured("Another name of `reasoning_budget_tokens`.")] = None


class Thinking(Shape):
    """Fields of a request that say how much to think."""

    reasoning_effort: Annotated[Effort | None, Honoured("How much a thinking model thinks; none: not at all.")] = None
    think: Annotated[ThinkSetting | None, Honoured("Ollama's form of `reasoning_effort`; false: no thinking.")] = None
    reasoning: Annotated[
        ReasoningSetting | None, Honoured("Another form of `reasoning_effort` and `reasoning_budget_tokens`.")
    ] = None
    reasoning_budget_tokens: Annotated[
        Budget | None,
        Honoured("So many tokens of thinking at most: then the thought is closed and the answer goes on. 0: none."),
    ] = None


def to_think(body: Thinking) -> tuple[Think | None, dict[str, str]]:
    """The setting, and what this request calls it."""
    nested = None if body.reasoning is None else body.reasoning.effort
    wishes: dict[str, Think] = {}
    for name, effort in (("reasoning_effort", body.reasoning_effort), ("reasoning.effort", nested)):
        think = effort_as_think(effort)
        if think is not None:
            wishes[name] = think
    if body.think is not None:
        wishes["think"] = body.think
    if len({str(wish) for wish in wishes.values()}) > 1:
        names = " and ".join(f"'{name}'" for name in wishes)
        raise InvalidRequest(f"{names} are the same setting, but were given different values.", param=[*wishes][-1])
    name, wish = next(iter(wishes.items()), ("reasoning_effort", None))
    return wish, {"think": name}


def to_budget(body: Thinking) -> tuple[int | None, dict[str, str]]:
    """Tokens of thinking at most, and what this request calls that."""
    nested = None if body.reasoning is None else body.reasoning.max_tokens
    said = {"reasoning_budget_tokens": body.reasoning_budget_tokens, "reasoning.max_tokens": nested}
    wishes = {name: budget for name, budget in said.items() if budget is not None}
    if len(set(wishes.values())) > 1:
        names = " and ".join(f"'{name}'" for name in wishes)
        raise InvalidRequest(f"{names} are the same setting, but were given different values.", param=[*wishes][-1])
    name, budget = next(iter(wishes.items()), ("reasoning_budget_tokens", None))
    return budget, {"think_budget": name}


def effort_as_think(effort: Effort | None) -> Think | None:
    """An effort as the house's setting, which has no level between `high` and `max`."""
    return None if effort is None else False if effort == "none" else "max" if effort == "xhigh" else effort
