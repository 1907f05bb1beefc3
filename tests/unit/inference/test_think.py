"""What `think` comes to in a template."""

from __future__ import annotations

from typing import Any

import pytest

from puna.inference.think import nearest, think_arguments
from puna.template.facts import TemplateFacts, ThinkTags


@pytest.mark.parametrize(
    ("level", "known", "found"),
    [
        ("minimal", ("low", "medium", "high"), "low"),
        ("max", ("low", "medium", "high"), "high"),
        ("max", ("low", "high", "max"), "max"),
        ("medium", ("low", "high"), "low"),
        ("minimal", ("high",), "high"),
    ],
)
def test_the_nearest_level(level: Any, known: Any, found: str) -> None:
    assert nearest(level, known) == found


def test_a_level_goes_to_the_template_as_it_knows_it() -> None:
    facts = TemplateFacts(system=True, thinking=ThinkTags("<t>", "</t>"), levels=("low", "high", "max"))
    assert think_arguments("max", {}, facts)[0]["reasoning_effort"] == "max"
    assert think_arguments("medium", {}, facts) == (
        {"enable_thinking": True, "thinking": True, "reasoning_effort": "low"},
        (),
    )
    assert think_arguments("max", {}, TemplateFacts(system=True))[1] == ("think",)
