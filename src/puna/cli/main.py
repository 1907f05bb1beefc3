"""The command `puna`: its arguments, and what its process ends with.

Each command's work is in a module of its own, imported only when it runs, so that `--help` stays quick.

Exit status: 0 done; 1 refused or failed (`Error: …` on stderr); 2 wrong usage; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from puna.cli.address import addressed
from puna.cli.flags import CommandGroup, OptionalValue
from puna.errors import PunaError

INTERRUPTED = 130
LOCK_FILE = "puna.lock"


@click.group(
    "puna",
    cls=CommandGroup,
    aliases={"start": "serve", "ls": "list"},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-v",
    "--version",
    "wanted",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: _version_and_leave(ctx) if wanted else None,
    help="Show the version and leave.",
)
def puna() -> None:
    """Run language models on this machine, and serve them to OpenAI and Ollama clients."""


def _version_and_leave(ctx: click.Context) -> None:
    if not ctx.resilient_parsing:
        _version()
        ctx.exit()


def _completed_by(name: str) -> Callable[[click.Context, click.Parameter, str], Any]:
    """A function of `puna.cli.completion`, imported when a shell asks."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> Any:
        from puna.cli import completion

        return getattr(completion, name)(ctx, param, incomplete)

    return complete


_models = _completed_by("stored_models")
_model = click.argument("model", metavar="MODEL", shell_complete=_models)
_prefix = click.argument("prefix", metavar="[PREFIX]", default="")
_insecure = click.option("--insecure", is_flag=True, help="Use a registry without TLS.")


def _verbose(help: str) -> Callable[[Any], Any]:
    return click.option("-v", "--verbose", is_flag=True, help=help)


@puna.command("serve")
@click.option("-b", "--background", is_flag=True, help="Start it, and come back.")
@click.option("--status", is_flag=True, help="Tell whether it runs, since when, and where its log lies.")
@click.option("--stop", is_flag=True, help="Stop the server that you started.")
@click.option("--log", metavar="FILE", type=click.Path(path_type=Path), help="Log there instead of on stderr.")
@addressed
def serve(*, background: bool, status: bool, stop: bool, log: Path | None) -> None:
    """Start the server, or see to one that runs.

    In the foreground, until Ctrl-C, unless told otherwise. All settings: docs/reference/settings.md.
    """
    if background + status + stop + (log is not None) > 1:
        raise click.UsageError("only one of --background, --status, --stop and --log at a time")
    if not (background or status or stop):
        from puna.cli.serve import serve as work

        sys.exit(work(log))
    from puna.cli.background import start_server, stop_server, tell_state
    from puna.cli.connect import settings

    _call(lambda: (start_server if background else tell_state if status else stop_server)(settings()))


@puna.command("run")
@_model
@click.argument("prompt", metavar="[PROMPT]...", nargs=-1)
@click.option("--keepalive", metavar="DURATION", help="Keep it loaded so long, such as 5m.")
@click.option("--verbose", is_flag=True, help="Show counts and rates after each answer.")
@_insecure
@click.option("--nowordwrap", is_flag=True, help="Do not break lines between words.")
@click.option("--format", metavar="FORMAT", default="", help="'json', or a JSON Schema as text.")
@click.option("--think", cls=OptionalValue, metavar="[=LEVEL]", help="true, false, high, medium, low or max.")
@click.option("--hidethinking", is_flag=True, help="Do not show the thinking.")
@click.option("--truncate/--no-truncate", default=None, help="Embedding: cut what does not fit.")
@click.option("--dimensions", type=click.IntRange(min=0), default=0, help="Embedding: how many numbers.")
@addressed
def run(model: str, prompt: tuple[str, ...], **flags: Any) -> None:
    """Ask a model.

    Pulls it when it is not here, and starts a server when none runs. MODEL is a name, or the path of a GGUF file.
    With a PROMPT, or text on stdin, it is answered once; without, there is a conversation.
    """
    from puna.cli.ask import Ask
    from puna.cli.piped import piped_text, words_text
    from puna.cli.run import can_converse
    from puna.cli.run import run as work

    ask = Ask(
        model=model,
        words=words_text(prompt),
        piped=piped_text(),
        interactive=can_converse(),
        keep_alive=flags["keepalive"],
        verbose=flags["verbose"],
        insecure=flags["insecure"],
        word_wrap=not flags["nowordwrap"],
        format=flags["format"],
        think=flags["think"],
        hide_thinking=flags["hidethinking"],
        truncate=flags["truncate"],
        dimensions=flags["dimensions"],
    )
    _call(lambda: work(ask))


@puna.command("pull")
@click.argument("model", metavar="[MODEL]", default="", shell_complete=_models)
@click.option("--all", "everything", is_flag=True, help="Every model that was pulled and has a newer one.")
@click.option("--locked", is_flag=True, help="The models of a lock file as it says, in place of MODEL: [FILE].")
@click.option("--name", metavar="NAME", default="", help="What to call a model that comes from a file.")
@_insecure
@addressed
def pull(model: str, *, everything: bool, locked: bool, name: str, insecure: bool) -> None:
    """Fetch a model.

    NAME@sha256:… fetches that one and no other. A path (./model.gguf, a directory of GGUF files, file:///…) takes
    those files, without a second copy where the file system can share them. With --locked, MODEL is a file that
    'puna lock' wrote, puna.lock if not given: what a source has under a name by now is refused where it is another
    one than the file says.
    """
    if everything + locked > 1 or (everything and model) or not (everything or locked or model):
        raise click.UsageError("one of MODEL, --all and --locked [FILE] is needed")
    if locked:
        from puna.cli.lock import pull_locked

        _call(lambda: pull_locked(model or LOCK_FILE, insecure=insecure))
        return
    from puna.cli.transfer import pull as work
    from puna.cli.transfer import pull_all

    _call(lambda: pull_all(insecure=insecure) if everything else work(model, name=name, insecure=insecure))


@puna.command("outdated")
@click.argument("models", metavar="[MODEL]...", nargs=-1, shell_complete=_models)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_insecure
@addressed
def outdated(models: tuple[str, ...], *, as_json: bool, insecure: bool) -> None:
    """Tell which models have a newer one where they came from.

    'puna pull --all' fetches those. Where a source cannot tell, it is said.
    """
    from puna.cli.outdated import outdated as work

    _call(lambda: work(models, as_json=as_json, insecure=insecure))


@puna.command("estimate")
@click.argument("model", metavar="MODEL", shell_complete=_models)
@click.option(
    "--ctx", "num_ctx", metavar="N", type=click.IntRange(1, 2**63 - 1), help="Tokens of context for each request."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@addressed
def estimate(model: str, *, num_ctx: int | None, as_json: bool) -> None:
    """Tell what a model would take of memory.

    Nothing is loaded. It says whether that fits, and the largest context that would.
    """
    from puna.cli.estimate import estimate as work

    _call(lambda: work(model, num_ctx, as_json=as_json))


@puna.command("search")
@click.argument("word", metavar="WORD")
@_insecure
@addressed
def search(word: str, *, insecure: bool) -> None:
    """Look for models, here and in what sources list.

    Sources are hf.co and the registries that PUNA_REGISTRIES and PUNA_MIRRORS name. What cannot be searched is said.
    """
    if not word.strip():
        raise click.UsageError("a WORD to look for is needed")
    from puna.cli.search import search as work

    _call(lambda: work(word, insecure=insecure))


@puna.command("lock")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, shell_complete=_models)
@click.option("-o", "--output", metavar="FILE", default=LOCK_FILE, show_default=True, help="Where to write it.")
@_insecure
@addressed
def lock(models: tuple[str, ...], *, output: str, insecure: bool) -> None:
    """Write down which models a project is made with, to the byte.

    'puna pull --locked' fetches exactly these, on any machine. A model that is not here is looked up in its registry,
    and not fetched.
    """
    from puna.cli.lock import lock as work

    _call(lambda: work(models, output, insecure=insecure))


@puna.command("push")
@_model
@_insecure
@addressed
def push(model: str, *, insecure: bool) -> None:
    """Send a model to its registry."""
    from puna.cli.transfer import push as work

    _call(lambda: work(model, insecure=insecure))


@puna.command("create")
@_model
@click.option(
    "-f",
    "--file",
    metavar="FILE",
    default="Modelfile",
    help="The Modelfile.",
    show_default=True,
    shell_complete=_completed_by("files"),
)
@click.option("-q", "--quantize", metavar="TYPE", default="", help="Such as Q4_K_M.")
@addressed
def create(model: str, *, file: str, quantize: str) -> None:
    """Make a model from a Modelfile."""
    from puna.cli.create import create as work

    _call(lambda: work(model, file, quantize=quantize))


@puna.command("export")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, shell_complete=_models)
@click.option("-o", "--output", metavar="FILE", required=True, help="Where to write it; '-' is stdout.")
@addressed
def export(models: tuple[str, ...], *, output: str) -> None:
    """Write models into one file, to be carried elsewhere.

    The file is a tar in OCI's image layout. 'puna import' reads it, on a machine without network too. The same
    models give the same bytes. Works on the models directory itself: no server is needed.
    """
    from puna.cli.export import export as work

    work(models, output)


@puna.command("import")
@click.argument("file", metavar="FILE")
@click.option("--name", metavar="NAME", default="", help="What to call a model that comes alone.")
@addressed
def import_archive(file: str, *, name: str) -> None:
    """Take in the models of a file that 'puna export' wrote.

    FILE is a tar in OCI's image layout, whoever wrote it; '-' is stdin. Every byte is checked before a model is listed.
    Works on the models directory itself: no server is needed.
    """
    from puna.cli.import_ import import_archive as work

    work(file, name)


@puna.command("package")
@_model
@click.option("-o", "--output", metavar="DIR", default=".", show_default=True, help="Where the wheels go.")
@click.option("--name", metavar="NAME", default="", help="Of the package; made from the model's if not given.")
@click.option("--package-version", metavar="VERSION", default="1.0.0", show_default=True, help="Of the package.")
@click.option(
    "--part-size",
    metavar="MB",
    type=click.IntRange(1, 2000),
    default=90,
    show_default=True,
    help="Of weights in one wheel.",
)
@addressed
def package(model: str, *, output: str, name: str, package_version: str, part_size: int) -> None:
    """Build wheels that carry a model.

    A package index, or a folder that pip looks into, then holds it, and 'puna pull pypi/NAME' takes it back to the
    byte. A model that is larger than an index takes in one file becomes several packages. Nothing in them runs.
    """
    from puna.cli.package import package as work

    work(model, output, name=name, version=package_version, part_size=part_size * 1_000_000)


@puna.command("list")
@_prefix
@addressed
def list_models(prefix: str) -> None:
    """List the models that are here.

    With PREFIX, those whose names begin so, in capitals or not.
    """
    from puna.cli.models import list_models as work
    from puna.client.direct import without_loop

    try:
        without_loop(work(prefix))
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None


@puna.command("ps")
@_prefix
@_verbose("Show the engine of each, and why it was chosen.")
@addressed
def ps(prefix: str, *, verbose: bool) -> None:
    """List the models that are loaded.

    With PREFIX, those whose names begin so.
    """
    from puna.cli.models import list_running as work

    _call(lambda: work(prefix, verbose=verbose))


@puna.command("show")
@_model
@click.option("--license", is_flag=True, help="Only the licence.")
@click.option("--modelfile", is_flag=True, help="Only the Modelfile.")
@click.option("--parameters", is_flag=True, help="Only the parameters.")
@click.option("--template", is_flag=True, help="Only the template.")
@click.option("--system", is_flag=True, help="Only the system message.")
@_verbose("Show all metadata and tensors.")
@addressed
def show(model: str, *, verbose: bool, **selectors: bool) -> None:
    """Tell what a model is."""
    from puna.cli.models import show as work

    _call(lambda: work(model, tuple(name for name, wanted in selectors.items() if wanted), verbose=verbose))


@puna.command("cp")
@click.argument("source", metavar="SOURCE", shell_complete=_models)
@click.argument("destination", metavar="DESTINATION")
@addressed
def cp(source: str, destination: str) -> None:
    """Give a model a second name."""
    from puna.cli.models import copy as work

    _call(lambda: work(source, destination))


@puna.command("rm")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, shell_complete=_models)
@addressed
def rm(models: tuple[str, ...]) -> None:
    """Remove models."""
    from puna.cli.models import remove as work

    _call(lambda: work(models))


@puna.command("verify")
@click.argument("model", metavar="[MODEL]", default="", shell_complete=_models)
@click.option("--all", "every", is_flag=True, help="All models.")
@click.option("--repair", is_flag=True, help="Bring back what is damaged from where it came.")
@_insecure
@addressed
def verify(model: str, *, every: bool, repair: bool, insecure: bool) -> None:
    """Read every byte of a model, and name what is damaged.

    Ends with status 1 when something is damaged, or stays so.
    """
    if bool(model) == every:
        raise click.UsageError("one of MODEL and --all is needed")
    from puna.cli.verify import verify as work

    _call(lambda: work(model, every=every, repair=repair, insecure=insecure))


@puna.command("batch")
@click.argument("action", metavar="run", type=click.Choice(["run"]))
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="FILE", required=True, type=click.Path(path_type=Path), help="The answers.")
@click.option(
    "--parallel", metavar="N", type=click.IntRange(1, 256), default=8, show_default=True, help="Requests at once."
)
@addressed
def batch(action: str, source: Path, output: Path, parallel: int) -> None:
    """Answer a file of requests, with a server or without one.

    The lines are those of OpenAI's batches: an object with custom_id, url (such as /v1/chat/completions) and body. A
    running server answers them behind its interactive requests. What is answered is written at once, in any order:
    the same command goes on where it stood. Ends with status 1 when a line fails; the output says why.
    """
    from puna.cli.batch import run as work

    _call(lambda: work(source, output, parallel))


@puna.command("stop")
@click.argument("model", metavar="MODEL", shell_complete=_completed_by("loaded_models"))
@addressed
def stop(model: str) -> None:
    """Unload a model.

    The server itself is stopped with 'puna serve --stop'.
    """
    from puna.cli.models import stop as work

    _call(lambda: work(model))


@puna.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@addressed
def doctor(*, as_json: bool) -> None:
    """Tell what this machine can run, and what to do where it cannot.

    Ends with status 1 when something is missing that running a model needs.
    """
    from puna.cli.doctor import doctor as work

    _call(lambda: work(as_json=as_json))


@puna.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what a shell reads to complete commands and models.

    \b
    bash  eval "$(puna completion bash)"        in ~/.bashrc
    zsh   eval "$(puna completion zsh)"         in ~/.zshrc, after compinit
    fish  puna completion fish | source         in ~/.config/fish/config.fish
    """
    from puna.cli.completion import script

    click.echo(script(shell), nl=False)


@puna.command("version")
@addressed
def version() -> None:
    """Show the version.

    The running server's; and this command's, where that is another or no server runs.
    """
    _version()


@puna.command("help")
@click.argument("command", metavar="[COMMAND]", default="", shell_complete=_completed_by("commands"))
@click.pass_context
def show_help(ctx: click.Context, command: str) -> None:
    """Show what there is, or what a command takes."""
    parent = ctx.parent
    assert parent is not None
    if not command:
        click.echo(parent.get_help())
        return
    found = puna.require(parent, command)
    with click.Context(found, info_name=found.name, parent=parent) as of_command:
        click.echo(found.get_help(of_command))


def _version() -> None:
    from puna.cli.models import version as work

    _call(work)


def _call(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a command's work to its end, or until Ctrl-C."""
    import asyncio

    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None


# ---------------------------------------------------------------------------------------------------------- the process


def main() -> NoReturn:
    """The console script."""
    _complete_streams()
    if "_PUNA_COMPLETE" in os.environ:
        from puna.cli.completion import answer

        answer(puna)
    try:
        status = puna.main(args=sys.argv[1:], prog_name="puna", standalone_mode=False)
        sys.stdout.flush()
        _leave(status if isinstance(status, int) else 0)
    except click.ClickException as error:
        _show(error.show)
        _leave(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _leave(INTERRUPTED)
    except BrokenPipeError:
        _leave(1)  # Whoever read our output has left (`puna list | head -1`).
    except Exception as error:  # the last line before the user: a traceback is for those who ask
        if os.environ.get("PUNA_DEBUG", "").lower() in {"1", "t", "true", "yes", "on"}:
            raise
        text = f"Error: {_told(error)}"
        _show(lambda: print(text, file=sys.stderr))
        _leave(1)


def _show(last_words: Callable[[], None]) -> None:
    """Nobody can be told that they cannot be shown."""
    with suppress(OSError):
        last_words()


def _told(error: Exception) -> str:
    if isinstance(error, PunaError):
        return str(error)
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}:
        reason = (error.strerror or str(error)).lower()
        return f"{error.filename or 'the output'} could not be written ({reason}): make room, or write elsewhere"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}"
    return f"this is a fault in Puna ({type(error).__name__}: {error}); PUNA_DEBUG=1 shows where"


def _complete_streams() -> None:
    """Where the caller closed an output, its text goes nowhere; what a terminal cannot show becomes '?'."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - it stays open as long as the process lives
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _leave(status: int) -> NoReturn:
    """End. What could not be written stays unwritten: Python would try once more, and complain."""
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    sys.exit(status)


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
