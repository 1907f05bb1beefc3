"""The command `puna`: its arguments, and what its process ends with.

Each command's work is in a module of its own, imported only when it runs, so that `--help` stays quick.

Exit status: 0 done; 1 refused or failed (`Error: …` on stderr); 2 wrong usage; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, NoReturn

import typer

from puna.errors import PunaError

app = typer.Typer(
    name="puna",
    help="Run language models on this machine, and serve them to OpenAI and Ollama clients.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help is there in a third of the time that the coloured one takes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Model = Annotated[str, typer.Argument(metavar="MODEL", show_default=False)]
Insecure = Annotated[bool, typer.Option("--insecure", help="Use a registry without TLS.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show more.")]
Prefix = Annotated[str, typer.Argument(metavar="[PREFIX]", help="Only names that begin so.", show_default=False)]


def _show_version(wanted: bool) -> None:
    if wanted:
        from puna.cli.models import version

        _call(version)
        raise typer.Exit


@app.callback()
def puna(
    version: Annotated[
        bool,
        typer.Option("-v", "--version", is_eager=True, callback=_show_version, help="Show the version and leave."),
    ] = False,
) -> None:
    pass


@app.command("start", hidden=True)
@app.command("serve")
def serve() -> None:
    """Start the server. PUNA_HOST says where it listens; all settings: docs/reference/settings.md."""
    from puna.cli.serve import serve as work

    raise typer.Exit(work())


@app.command("run")
def run(  # the flags are what they are
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name, or the path of a GGUF file.")],
    prompt: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Answered once. Without: a conversation.")
    ] = None,
    keepalive: Annotated[
        str | None, typer.Option("--keepalive", metavar="DURATION", help="Keep it loaded so long, such as 5m.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show counts and rates after each answer.")] = False,
    insecure: Insecure = False,
    nowordwrap: Annotated[bool, typer.Option("--nowordwrap", help="Do not break lines between words.")] = False,
    format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="'json', or a JSON Schema as text.", show_default=False)
    ] = "",
    think: Annotated[
        str | None,
        typer.Option("--think", metavar="[=LEVEL]", help="true, false, high, medium, low or max.", show_default=False),
    ] = None,
    hidethinking: Annotated[bool, typer.Option("--hidethinking", help="Do not show the thinking.")] = False,
    truncate: Annotated[
        bool | None, typer.Option("--truncate/--no-truncate", help="Embedding: cut what does not fit.")
    ] = None,
    dimensions: Annotated[int, typer.Option("--dimensions", min=0, help="Embedding: how many numbers.")] = 0,
) -> None:
    """Ask a model. Pulls it when it is not here, and starts a server when none runs."""
    from puna.cli.ask import Ask
    from puna.cli.run import can_converse, piped_text
    from puna.cli.run import run as work

    ask = Ask(
        model=model,
        words=tuple(prompt or ()),
        piped=piped_text(),
        interactive=can_converse(),
        keep_alive=keepalive,
        verbose=verbose,
        insecure=insecure,
        word_wrap=not nowordwrap,
        format=format,
        think=think,
        hide_thinking=hidethinking,
        truncate=truncate,
        dimensions=dimensions,
    )
    _call(lambda: work(ask))


@app.command("pull")
def pull(model: Model, insecure: Insecure = False) -> None:
    """Fetch a model."""
    from puna.cli.transfer import pull as work

    _call(lambda: work(model, insecure=insecure))


@app.command("push")
def push(model: Model, insecure: Insecure = False) -> None:
    """Send a model to its registry."""
    from puna.cli.transfer import push as work

    _call(lambda: work(model, insecure=insecure))


@app.command("create")
def create(
    model: Model,
    file: Annotated[str, typer.Option("-f", "--file", metavar="FILE", help="The Modelfile.")] = "Modelfile",
    quantize: Annotated[
        str, typer.Option("-q", "--quantize", metavar="TYPE", help="Such as Q4_K_M.", show_default=False)
    ] = "",
) -> None:
    """Make a model from a Modelfile."""
    from puna.cli.create import create as work

    _call(lambda: work(model, file, quantize=quantize))


@app.command("ls", hidden=True)
@app.command("list")
def list_models(prefix: Prefix = "") -> None:
    """List the models that are here."""
    from puna.cli.models import list_models as work

    _call(lambda: work(prefix))


@app.command("ps")
def ps(prefix: Prefix = "", verbose: Verbose = False) -> None:
    """List the models that are loaded; with -v, the engine of each and why it was chosen."""
    from puna.cli.models import list_running as work

    _call(lambda: work(prefix, verbose=verbose))


@app.command("show")
def show(  # the flags are what they are
    model: Model,
    license: Annotated[bool, typer.Option("--license", help="Only the licence.")] = False,
    modelfile: Annotated[bool, typer.Option("--modelfile", help="Only the Modelfile.")] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="Only the parameters.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Only the template.")] = False,
    system: Annotated[bool, typer.Option("--system", help="Only the system message.")] = False,
    verbose: Verbose = False,
) -> None:
    """Tell what a model is."""
    from puna.cli.models import show as work

    flags = {
        "license": license,
        "modelfile": modelfile,
        "parameters": parameters,
        "template": template,
        "system": system,
    }
    _call(lambda: work(model, tuple(name for name, wanted in flags.items() if wanted), verbose=verbose))


@app.command("cp")
def cp(
    source: Annotated[str, typer.Argument(metavar="SOURCE")],
    destination: Annotated[str, typer.Argument(metavar="DESTINATION")],
) -> None:
    """Give a model a second name."""
    from puna.cli.models import copy as work

    _call(lambda: work(source, destination))


@app.command("rm")
def rm(models: Annotated[list[str], typer.Argument(metavar="MODEL...")]) -> None:
    """Remove models."""
    from puna.cli.models import remove as work

    _call(lambda: work(tuple(models)))


@app.command("stop")
def stop(model: Model) -> None:
    """Unload a model."""
    from puna.cli.models import stop as work

    _call(lambda: work(model))


def _call(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a command's work to its end. Ctrl-C is no error to tell."""
    import asyncio

    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def normalised(arguments: list[str]) -> list[str]:
    """What the parser cannot say for itself: `help run` is `run --help`, and a bare `--think` is `--think=true`.

    The value of `--think`, if any, is joined with '=', so that a word of the prompt may follow it.
    """
    if arguments[:1] == ["help"]:
        return [*arguments[1:], "--help"]
    ends = arguments.index("--") if "--" in arguments else len(arguments)
    return ["--think=true" if item == "--think" else item for item in arguments[:ends]] + arguments[ends:]


def main() -> NoReturn:
    """The console script."""
    debug = os.environ.get("PUNA_DEBUG", "").lower() in {"1", "t", "true", "yes", "on"}
    try:
        app(args=normalised(sys.argv[1:]))
    except PunaError as error:
        _fail(str(error))
    except BrokenPipeError:
        # Whoever read our output has left (`puna list | head -1`); nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # the last line before the user: a traceback is for those who ask
        if debug:
            raise
        _fail(f"this is a fault in Puna ({type(error).__name__}: {error}); PUNA_DEBUG=1 shows where")
    sys.exit(0)


def _fail(message: str) -> NoReturn:
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
