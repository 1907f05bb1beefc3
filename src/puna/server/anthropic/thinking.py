"""How much a model thinks, and what shapes its answer: their contract, and what they become. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from puna.errors import InvalidRequest
from puna.server.contract.shapes import Honoured, JsonObject, Reported, Shape
from puna.types import JsonOutput, Output, Think

_LEAST_BUDGET = 1024
"""What Anthropic's own API takes."""


class Displayed(Shape):
    display: Annotated[
        Literal["summarized", "omitted"] | None,
        Honoured("omitted: the blocks are there, empty. The thought is never summarized: it is given whole."),
    ] = None


class ThinkingEnabled(Displayed):
    type: Literal["enabled"]
    budget_tokens: Annotated[
        int,
        Field(ge=0, le=2**31 - 1),
        Honoured(
            "So many tokens of thinking at most, fewer than `max_tokens`; then the thought is closed and the answer "
            "goes on. Fewer than 1024 are taken too."
        ),
    ]


class ThinkingAdaptive(Displayed):
    type: Literal["adaptive"]


class ThinkingDisabled(Shape):
    type: Literal["disabled"]


class ThinkingBetweenTools(Shape):
    type: Literal["between_tools"]


ThinkingSpec: TypeAlias = Annotated[
    ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled | ThinkingBetweenTools, Field(discriminator="type")
]


class JsonFormat(Shape):
    type: Literal["json_schema"]
    schema_: Annotated[JsonObject, Field(alias="schema"), Honoured("The schema that the answer satisfies.")]


class OutputConfig(Shape):
    effort: Annotated[
        Literal["low", "medium", "high", "xhigh", "max"] | None,
        Honoured("How much a thinking model thinks: the nearest level that its template knows."),
    ] = None
    format: Annotated[JsonFormat | None, Honoured("The form of the answer, enforced while generating.")] = None
    task_budget: Annotated[JsonObject | None, Reported("Nothing counts over several requests.")] = None


class ThinkingAndForm(Shape):
    """Fields of a request that say how much to think, and in what form to answer."""

    thinking: Annotated[
        ThinkingSpec | None,
        Honoured(
            "enabled, adaptive (as absent: the model decides) or disabled. Of a model that cannot think, and of "
            "between_tools, the answer says that it had no effect."
        ),
    ] = None
    output_config: Annotated[OutputConfig | None, Honoured("The effort, and the form of the answer.")] = None
    output_format: Annotated[JsonFormat | None, Honoured("The old name of `output_config.format`.")] = None


# ------------------------------------------------------------------------------------------------ what they become


@dataclass(frozen=True, slots=True)
class ThoughtWish:
    """What a request wants of thinking. `shown`: whether the answer has the text of it."""

    think: Think | None
    budget: int | None
    shown: bool
    ignored: tuple[str, ...] = ()
    nonstandard: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)


def to_thought(body: ThinkingAndForm, max_tokens: int | None) -> ThoughtWish:
    """`max_tokens`: of the answer, the thinking among them."""
    spec = body.thinking
    effort = None if body.output_config is None else body.output_config.effort
    level: Think | None = "max" if effort == "xhigh" else effort
    names = {"think": "thinking" if level is None else "output_config.effort", "think_budget": "thinking.budget_tokens"}
    shown = not (isinstance(spec, Displayed) and spec.display == "omitted")
    match spec:
        case ThinkingDisabled():
            ignored = () if level is None else ("output_config.effort",)
            return ThoughtWish(False, None, shown, ignored, names={"think": "thinking"})
        case ThinkingEnabled(budget_tokens=budget):
            if max_tokens is not None and budget >= max_tokens:
                raise InvalidRequest(
                    f"'max_tokens' ({max_tokens}) must be greater than 'thinking.budget_tokens' ({budget}).",
                    param="thinking.budget_tokens",
                )
            low = ("thinking.budget_tokens",) if budget < _LEAST_BUDGET else ()
            return ThoughtWish(level or True, budget, shown, nonstandard=low, names=names)
        case ThinkingBetweenTools():
            return ThoughtWish(level, None, shown, ("thinking",), names=names)
        case _:
            return ThoughtWish(level, None, shown, names=names)


def to_output(body: ThinkingAndForm) -> tuple[Output | None, dict[str, str]]:
    """What shapes the answer, and what this request calls it."""
    nested = None if body.output_config is None else body.output_config.format
    if nested is not None and body.output_format is not None and nested != body.output_format:
        raise InvalidRequest(
            "'output_format' and 'output_config.format' are the same setting, but were given different values.",
            param="output_format",
        )
    name = "output_config.format.schema" if nested is not None else "output_format.schema"
    wanted = nested or body.output_format
    return None if wanted is None else JsonOutput(wanted.schema_), {"output": name, "grammar": name}
