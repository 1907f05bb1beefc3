"""Commands whose flags read as Ollama's do: `--verbose`, `--verbose=false`, `--think`, `--think=high`. Over Click."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from shutil import get_terminal_size
from typing import Any

import click

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


_LEAST_COLUMNS = 20
_UNCUT = 10_000


class WrongUsage(click.ClickException):
    """A value that its flag does not take, or flags that do not go together: told in a line, without the usage."""

    exit_code = 2


class _Context(click.Context):
    """Help as wide as the terminal is. Click's own is never narrower than 50 columns, which then break in words."""

    def make_formatter(self) -> click.HelpFormatter:
        most = self.max_content_width or 80
        columns = min(self.terminal_width or get_terminal_size().columns, most)
        return click.HelpFormatter(width=max(columns - 2, _LEAST_COLUMNS))


class Command(click.Command):
    """A command with such flags."""

    context_class = _Context

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, plain(args, self.get_params(ctx), ctx))


class OptionalValue(click.Option):
    """An option whose value may be left out: it is `true` then. A value is joined with '='; a word after it is none."""


class CommandGroup(click.Group):
    """Commands in the order in which they are declared; `aliases` are other names of theirs, not shown."""

    command_class = Command
    context_class = _Context

    def __init__(self, *arguments: Any, aliases: dict[str, str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.aliases = aliases

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, plain(args, self.get_params(ctx), ctx, interspersed=False))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each with its whole sentence, on several lines where there is little room."""
        known = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(_UNCUT)) for name, command in known if not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing:  # a shell that asks what may follow is told nothing
            self.require(ctx, args[0])
        return super().resolve_command(ctx, args)

    def require(self, ctx: click.Context, name: str) -> click.Command:
        """UsageError with the nearest names when there is no such command."""
        found = self.get_command(ctx, name)
        if found is None:
            message = f'unknown command "{name}" for "{self.name}"'
            ctx.fail(message + did_you_mean(name, (*self.commands, *self.aliases)))
        return found


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """', did you mean …?' with the nearest of `known`; '' when nothing is near."""
    near = get_close_matches(name.lower(), known, n=2, cutoff=0.6)
    return f", did you mean {' or '.join(near)}?" if near else ""


def plain(
    arguments: Sequence[str], parameters: Sequence[click.Parameter], ctx: click.Context, *, interspersed: bool = True
) -> list[str]:
    """The arguments as Click takes them: a flag without a value where it is true, and not at all where it is false.

    The last word on a flag holds. Not `interspersed`: what follows the first word that is no option is left as it is.
    """
    options = {
        text: parameter
        for parameter in parameters
        if isinstance(parameter, click.Option)
        for text in (*parameter.opts, *parameter.secondary_opts)
    }
    flags: dict[str | None, list[str]] = {}
    rest: list[str] = []
    items = iter(arguments)
    for item in items:
        word, equals, value = item.partition("=")
        option = options.get(word)
        if item == "--" or (not interspersed and not item.startswith("-")):
            rest += [item, *items]
        elif option is None:
            rest.append(item)
        elif option.is_flag:
            flags[option.name] = _flag(option, word, value, ctx) if equals else [word]
        elif isinstance(option, OptionalValue):
            rest.append(item if equals else f"{word}=true")
        else:
            rest.append(item)
            if not equals:
                rest += [value for value in (next(items, None),) if value is not None]
    return [*(word for words in flags.values() for word in words), *rest]


def _flag(option: click.Option, word: str, value: str, ctx: click.Context) -> list[str]:
    if value in _TRUE:
        return [word]
    if value in _FALSE:
        return option.secondary_opts[:1] if word in option.opts else option.opts[:1]
    raise click.BadParameter(f"{value!r} is neither true nor false.", ctx=ctx, param=option)
