"""Completion in bash, zsh and fish: the scripts, and what a shell is offered. Quiet whatever goes wrong, and quick."""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from puna.cli.address import VARIABLE, address_text
from puna.errors import PunaError
from puna.settings import IDENTITY, Settings

ASKING = "_PUNA_COMPLETE"
"""Set by the scripts when they ask."""

_SERVER_SECONDS = 0.1
_ANSWER_BYTES = 4 * 1024 * 1024


def script(shell: str) -> str:
    """What a shell has to read to complete `puna`."""
    found = get_completion_class(shell)
    assert found is not None
    return found(click.Command("puna"), {}, "puna", ASKING).source()


def answer(cli: click.Command) -> NoReturn:
    """Tell the shell that asks what it may offer; nothing when that cannot be told."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for the rest of this short life
    with suppress(Exception):
        cli.main(args=[], prog_name="puna", complete_var=ASKING, standalone_mode=False)
    sys.exit(0)


class _Bash(BashComplete):
    """Bash ends words at colons, which names of models have: the line is cut here, and what stands before a colon is
    taken off what is offered."""

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' type value before=""
    local line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##*[[:space:]]}"
    if [[ "$word" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then
        before="${word%%"${word##*:}"}"
    fi
    COMPREPLY=()
    while IFS=',' read -r type value; do
        case "$type" in
            dir) compopt -o dirnames 2>/dev/null ;;
            file) compopt -o default 2>/dev/null ;;
            plain) COMPREPLY+=("${value#"$before"}") ;;
        esac
    done < <(COMP_LINE="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null || complete -F %(complete_func)s %(prog_name)s
"""

    @staticmethod
    def _check_version() -> None:
        """The script is for every Bash from 4.0 on."""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        begun = "" if not line or line[-1].isspace() else words.pop()
        return words[1:], begun


add_completion_class(_Bash)


# ------------------------------------------------------------------------------------------------------------- models


def stored_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
    """The models that are here; each only once on a line. What looks like a path is one."""
    if incomplete.startswith((".", "/", "~")):
        return [CompletionItem(incomplete, type="file")] if ctx.command.name == "run" else []
    taken = {word for value in ctx.params.values() for word in (value if isinstance(value, tuple) else [value])}
    return _items((name for name in _models(ctx) if name not in taken), incomplete)


def loaded_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
    """The models that are in memory."""
    with suppress(PunaError, ValueError):
        return _items(_asked(_settings(ctx), "/api/ps") or (), incomplete)
    return []


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
    return [CompletionItem(incomplete, type="file")]


def commands(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
    parent = ctx.parent
    return (
        _items(parent.command.list_commands(parent), incomplete)
        if parent and isinstance(parent.command, click.Group)
        else []
    )


def _items(names: Sequence[str] | Iterator[str], incomplete: str) -> list[CompletionItem[Any]]:
    return [CompletionItem(name) for name in sorted(names) if name.lower().startswith(incomplete.lower())]


def _models(ctx: click.Context) -> list[str]:
    """The server knows best; where none answers at once, what lies in the store."""
    try:
        values = _settings(ctx)
    except (PunaError, ValueError):
        return []
    asked = _asked(values, "/api/tags")
    return list(asked) if asked is not None else [*dict.fromkeys(_on_disk(values))]


def _asked(values: Settings, path: str) -> tuple[str, ...] | None:
    """The names in a Puna's answer; None when no Puna answers, or not at once."""
    address = values.address
    if address.scheme != "http":
        return None
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    headers = {"authorization": f"Bearer {values.api_keys[0]}"} if values.api_keys else {}
    connection = http.client.HTTPConnection(host, address.port, timeout=_SERVER_SECONDS)
    try:
        connection.request("GET", address.path + path, headers=headers)
        response = connection.getresponse()
        if response.status != 200 or response.getheader(IDENTITY) is None:
            return None
        listed = json.loads(response.read(_ANSWER_BYTES))["models"]
        return tuple(_short(str(model["name"])) for model in listed)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()


def _on_disk(values: Settings) -> Iterator[str]:
    from puna.store.manifests import Manifests

    for store in (values.models, *values.read_only_models):
        yield from (_short(name.short) for name in Manifests(Path(store) / "manifests").names())


def _settings(ctx: click.Context) -> Settings:
    """With the address of the line, where it has one. PunaError, ValueError: it cannot be read."""
    host, port = ctx.params.get("host"), ctx.params.get("port")
    environment = dict(os.environ)
    if host is not None or port is not None:
        environment[VARIABLE] = address_text(host, port, environment)
    return Settings.from_environment(environment)


def _short(name: str) -> str:
    return name.removesuffix(":latest")
