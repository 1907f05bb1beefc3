"""docs/reference/command.md says what the command takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from puna.cli.main import puna

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_is_up_to_date() -> None:
    result = subprocess.run(
        [sys.executable, DOCS / "generate_command.py", "--check"], capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 0, result.stderr


def test_the_page_has_every_command_and_every_flag() -> None:
    page = (DOCS / "reference" / "command.md").read_text()
    for name, command in puna.commands.items():
        _, found, rest = page.partition(f"\n## puna {name}\n")
        assert found, name
        section = rest.partition("\n## ")[0]
        for option in command.params:
            if isinstance(option, click.Option):
                assert all(f"`{flag}`" in section for flag in option.opts), (name, option.opts)


def test_every_command_and_flag_is_explained() -> None:
    for name, command in puna.commands.items():
        assert command.help, name
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, (name, option.name)


def test_what_help_says_of_a_command_fits_in_a_line() -> None:
    """In a terminal of 80 columns: click ends what is longer with dots."""
    width = 80 - len("  completion  ") - 2
    assert not [name for name, command in puna.commands.items() if len(command.get_short_help_str(200)) > width]


def test_a_context_that_no_number_can_hold_is_wrong_usage() -> None:
    with pytest.raises(click.BadParameter, match="is not in the range"):
        puna.commands["estimate"].make_context("estimate", ["m", "--ctx", str(2**63)])
