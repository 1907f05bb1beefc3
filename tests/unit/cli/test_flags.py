"""Flags as Ollama's command takes them."""

from __future__ import annotations

import click
import pytest

from puna.cli.flags import did_you_mean, plain
from puna.cli.main import puna


def taken(command: str, *arguments: str) -> dict[str, object]:
    """What a command gets of its arguments."""
    found = puna.commands[command]
    with found.make_context(command, list(arguments), parent=click.Context(puna, info_name="puna")) as ctx:
        return dict(ctx.params)


def every_flag() -> list[tuple[str, str]]:
    return [
        (name, option)
        for name, command in puna.commands.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.is_flag
        for option in parameter.opts
    ]


@pytest.mark.parametrize(("command", "flag"), every_flag())
def test_every_flag_takes_a_value_as_gos_do(command: str, flag: str) -> None:
    parameters = puna.commands[command].params
    words = tuple("m" for parameter in parameters if isinstance(parameter, click.Argument) and parameter.required)
    name = next(
        parameter.name
        for parameter in puna.commands[command].params
        if isinstance(parameter, click.Option) and flag in parameter.opts
    )
    assert taken(command, flag, *words)[name] is True
    assert taken(command, *words, flag)[name] is True
    for text in ("1", "t", "T", "TRUE", "true", "True"):
        assert taken(command, f"{flag}={text}", *words)[name] is True
    for text in ("0", "f", "F", "FALSE", "false", "False"):
        assert not taken(command, f"{flag}={text}", *words)[name]
        assert not taken(command, flag, f"{flag}={text}", *words)[name], "the last one holds"
    assert taken(command, f"{flag}=false", *words, flag)[name] is True
    with pytest.raises(click.BadParameter, match="'perhaps' is neither true nor false"):
        taken(command, f"{flag}=perhaps", *words)


def test_a_flag_that_may_be_unsaid_is_false_only_when_it_is_said() -> None:
    assert taken("run", "m")["truncate"] is None
    assert taken("run", "m", "--truncate=false")["truncate"] is False
    assert taken("run", "m", "--no-truncate")["truncate"] is False
    assert taken("run", "m", "--no-truncate=false")["truncate"] is True


@pytest.mark.parametrize(
    ("arguments", "think", "prompt"),
    [
        (("m", "--think", "hi"), "true", ("hi",)),
        (("m", "hi", "--think"), "true", ("hi",)),
        (("m", "--think=low", "hi"), "low", ("hi",)),
        (("m", "--think=false", "hi"), "false", ("hi",)),
        (("m", "hi"), None, ("hi",)),
        (("m", "--", "--think"), None, ("--think",)),
        (("m", "--", "--verbose=false"), None, ("--verbose=false",)),
        (("m", "why --think=high?"), None, ("why --think=high?",)),
    ],
)
def test_think_takes_no_word_of_the_prompt(arguments: tuple[str, ...], think: str | None, prompt: str) -> None:
    params = taken("run", *arguments)
    assert (params["think"], params["prompt"]) == (think, prompt)


def test_the_value_of_an_option_is_no_flag() -> None:
    params = taken("run", "m", "--format", "--verbose", "hi")
    assert (params["format"], params["verbose"], params["prompt"]) == ("--verbose", False, ("hi",))


def test_before_a_command_nothing_after_the_first_word_is_touched() -> None:
    with click.Context(puna, info_name="puna") as ctx:
        arguments = ["run", "m", "-v=false", "--think"]
        assert plain(arguments, puna.get_params(ctx), ctx, interspersed=False) == arguments


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("lst", "did you mean list"),
        ("pul", "did you mean pull"),
        ("Serve", "did you mean serve"),
        ("strat", "did you mean start"),
        ("launch-missiles", ""),
    ],
)
def test_a_mistyped_command_is_answered_with_the_nearest(typed: str, told: str) -> None:
    with pytest.raises(click.UsageError, match=f'unknown command "{typed}" for "puna"') as raised:
        puna.make_context("puna", [typed]).command.invoke(puna.make_context("puna", [typed]))
    assert told in raised.value.message


def test_nothing_is_proposed_where_nothing_is_near() -> None:
    assert did_you_mean("xyz", ["smollm2", "llama3"]) == ""
    assert did_you_mean("SMOLM2", ["smollm2", "llama3"]) == ", did you mean smollm2?"
