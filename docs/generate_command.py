"""Write docs/reference/command.md from `puna.cli.main`. `--check`: only tell whether it is up to date."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from puna.cli.flags import OptionalValue
from puna.cli.main import puna
from puna.cli.session import HELP, HELP_SET, HELP_SHORTCUTS, HELP_SHOW

TARGET = Path(__file__).parent / "reference" / "command.md"

HEAD = """\
# The command

Generated from `puna.cli` by `python docs/generate_command.py`; edit it there.

Results go to stdout; progress, warnings and errors to stderr, so that pipes stay clean. `puna help COMMAND` shows what
stands here.

| exit status | |
|---|---|
| 0 | done |
| 1 | refused or failed: one line `Error: …` on stderr, with the remedy; silent when whoever read the output has left |
| 2 | wrong usage; a mistyped command or flag is answered with the nearest |
| 130 | stopped with Ctrl-C; what became of the work is said |

- Flags are Ollama's. Each that is yes or no takes a value too, as Go's do: `--verbose`, `--verbose=true`,
  `--verbose=false`; the last one holds. The value of `--think` may be left out and is joined with `=`: `--think`,
  `--think=high`, `--think=false`.
- `--` ends the flags: `puna run smollm2 -- --what is this?`
- A model's name is `[host/][namespace/]model[:tag]`; without a tag it is `:latest`. `NAME@sha256:…`
  is the manifest with that digest and no other. A short name of the catalogue whose
  model is there under its other tag answers all the same. A name that is not found is answered with those that may be
  meant.
- What is piped in comes before the words of the prompt. It is UTF-8, of 64 MiB at most; bytes that are no text are
  reported.
- `--host` and `--port` stand for `PUNA_HOST`, which is where a command looks for its server. All variables:
  [settings](settings.md).
- `start` is `serve`, `ls` is `list`.

"""

CONVERSATION = """\
## A conversation

`puna run MODEL` on a terminal, without a prompt. What is typed while an answer comes is the next message. `\"\"\"`
begins a message of several lines and ends it; it comes back from the history as one. Ctrl-C stops an answer or a
`/command`, or clears the line; Ctrl-D leaves. Colours are left out with `NO_COLOR` and on `TERM=dumb`.
`OLLAMA_NOHISTORY` keeps what is typed out of the history file.

"""


def page() -> str:
    return HEAD + "".join(section(name, command) for name, command in puna.commands.items()) + conversation()


def section(name: str, command: click.Command) -> str:
    with click.Context(command, info_name=f"puna {name}") as ctx:
        usage = " ".join(command.collect_usage_pieces(ctx))
    text = inspect.cleandoc(command.help or "")
    rows = "\n".join(rows_of(command))
    options = f"\n| flag | |\n|---|---|\n{rows}\n" if rows else ""
    return f"## puna {name}\n\n`puna {name} {usage}`\n\n{paragraphs(text)}\n{options}\n"


def paragraphs(text: str) -> str:
    """Click's mark of a paragraph that is not to be wrapped becomes a block."""
    blocks = (f"```\n{block[2:]}\n```" if block.startswith("\b\n") else block for block in text.split("\n\n"))
    return "\n\n".join(blocks)


def rows_of(command: click.Command) -> Iterator[str]:
    for option in command.params:
        if not isinstance(option, click.Option) or option.hidden:
            continue
        flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
        value = option.metavar or ("" if option.is_flag else "N")
        shown = f"{flags}{'' if isinstance(option, OptionalValue) else ' '}{value}".strip()
        default = f" Default: `{option.default}`." if option.show_default else ""
        yield f"| {shown} | {option.help}{default} |"


def conversation() -> str:
    blocks = (f"```\n{text.strip()}\n```\n" for text in (HELP, HELP_SET, HELP_SHOW, HELP_SHORTCUTS))
    return CONVERSATION + "\n".join(blocks)


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        current = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == page()
        if not current:
            print(f"{TARGET} is out of date: run python docs/generate_command.py", file=sys.stderr)  # noqa: T201
        return 0 if current else 1
    TARGET.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
