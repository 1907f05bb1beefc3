"""Which engine runs a model: a comparison of what engines say, whatever their names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from puna.engine.choose import EngineChoice, choose
from puna.engine.engine import Opinion
from puna.errors import Unsupported

FIRST = Opinion(engine="first", objection=None, need=2 << 30, merit="it is the faster one", slots=16)
SECOND = Opinion(engine="second", objection=None, need=1 << 30, merit="it runs the rest", slots=4)


def test_the_first_that_can_and_the_next_should_it_not_load() -> None:
    instead = EngineChoice("second", "it runs the rest", 4)
    assert choose("auto", [FIRST, SECOND], None) == EngineChoice("first", "it is the faster one", 16, instead)
    assert choose("auto", [FIRST], None).instead is None


def test_else_the_next_with_the_reason() -> None:
    choice = choose("auto", [replace(FIRST, objection="it has a projector"), SECOND], None)
    assert choice == EngineChoice("second", "it has a projector", 4)


def test_what_has_too_little_memory_is_passed_over() -> None:
    choice = choose("auto", [FIRST, SECOND], 3 << 29)
    assert choice.engine == "second"
    assert "the first engine would take about 2.0 GiB of memory, and 1.5 could be had" in choice.reason
    assert choice.instead is None
    assert choose("auto", [FIRST, SECOND], 2 << 30).engine == "first"


def test_where_all_have_too_little_the_last_is_left_to_refuse_with_figures() -> None:
    assert choose("auto", [FIRST, SECOND], 0).engine == "second"
    assert choose("auto", [FIRST], 0).engine == "first"


def test_a_gpu_comes_first_and_only_where_it_can() -> None:
    gpu = replace(SECOND, on_gpu=True, merit="it computes on the GPU of this machine")
    choice = choose("auto", [FIRST, gpu], None)
    assert (choice.engine, choice.reason) == ("second", "it computes on the GPU of this machine")
    assert choice.instead is not None
    assert choice.instead.engine == "first"
    assert choose("auto", [FIRST, replace(gpu, objection="it is not installed")], None).engine == "first"


def test_a_named_engine_is_taken_or_refused() -> None:
    assert choose("second", [FIRST, SECOND], 0) == EngineChoice("second", "named by PUNA_ENGINE", 4)
    with pytest.raises(Unsupported, match="not installed"):
        choose("third", [FIRST, SECOND], None)
    with pytest.raises(Unsupported, match="mamba"):
        choose("first", [replace(FIRST, objection="no family 'mamba'"), SECOND], None)


def test_where_none_can_all_say_why() -> None:
    bad = [replace(FIRST, objection="no family"), replace(SECOND, objection="not installed")]
    with pytest.raises(Unsupported, match="first: no family; second: not installed"):
        choose("auto", bad, None)
    with pytest.raises(Unsupported, match="none is installed"):
        choose("auto", [], None)
