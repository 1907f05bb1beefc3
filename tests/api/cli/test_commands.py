"""What each command prints, where, and what it ends with."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.gguf_files import CHATML, write_tiny_llama
from fakes.waiting import until
from puna import __version__

NOWHERE = "127.0.0.1:9"
"""Nothing listens there."""


@pytest.fixture
def own(serving: Any, command: Callable[..., Any], tmp_path: Path) -> Iterator[Any]:
    """The command on a server with an empty store."""
    with serving(models=tmp_path / "models") as server:
        yield command(server.url)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "My Model.gguf", chat_template=CHATML)


# ---------------------------------------------------------------------------------------------------------- help, usage


def test_help_is_quick(command: Callable[..., Any]) -> None:
    """In processor time, which other work on the machine does not stretch as it does the clock's."""
    puna = command(NOWHERE)
    took = []
    for _ in range(3):
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = puna("--help")
        done = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(done.ru_utime + done.ru_stime - began.ru_utime - began.ru_stime)
    assert ended.status == 0
    names = ("serve", "run", "pull", "create", "list", "ps", "show", "cp", "rm", "stop")
    assert all(name in ended.out for name in names)
    assert min(took) < 0.3


@pytest.mark.parametrize("columns", [30, 40, 79])
def test_help_fits_a_narrow_terminal(command: Callable[..., Any], columns: int) -> None:
    """And nothing of a sentence is left out."""
    puna = command(NOWHERE, COLUMNS=str(columns))
    for arguments in ((), ("pull",), ("serve",)):
        ended = puna(*arguments, "--help")
        assert ended.status == 0
        assert max(map(len, ended.out.splitlines())) <= columns
        assert "..." not in ended.out.replace("]...", "")
    assert "Tell what this machine can run, and what to do where it cannot." in " ".join(puna("--help").out.split())


HEAVY = ("rich", "pydantic", "prompt_toolkit", "starlette", "uvicorn", "jsonschema", "structlog", "puna.server")
"""What takes long to import, and what a quick command has no use for."""


def test_help_imports_nothing_heavy(command: Callable[..., Any]) -> None:
    assert imported(command(NOWHERE), "--help").isdisjoint({*HEAVY, "aiohttp", "asyncio"})


@pytest.mark.parametrize(
    "arguments", [("list",), ("list", "ti"), ("ps",), ("version",), ("rm", "nope"), ("stop", "tiny")]
)
def test_short_commands_import_nothing_heavy(puna: Any, arguments: tuple[str, ...]) -> None:
    """`puna list` has 0.2 s for everything: what takes long to import is out of the question."""
    assert puna("run", "tiny", "hi").status == 0
    modules = imported(puna, *arguments)
    assert "puna.cli.models" in modules, "it did its work"
    assert modules.isdisjoint({*HEAVY, "aiohttp", "psutil", "puna.types", "puna.model.model", "urllib.request"})


def test_a_list_without_a_server_imports_nothing_heavy(command: Callable[..., Any], store: Path) -> None:
    modules = imported(command(NOWHERE, PUNA_MODELS=str(store)), "list")
    assert "puna.store.glance" in modules
    assert modules.isdisjoint({*HEAVY, "aiohttp", "psutil", "puna.store.library"})


def imported(puna: Any, *arguments: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    code = (
        "import sys\nfrom puna.cli.main import main\n"
        "try:\n    main()\nfinally:\n    print('\\nIMPORTED', *sys.modules, flush=True)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=puna.environment, capture_output=True, text=True, timeout=30
    )
    return set(ended.stdout.rpartition("IMPORTED")[2].split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((), "Commands:"), (("list",), "Usage: puna list [OPTIONS] [PREFIX]"), (("ls",), "Usage: puna list")],
)
def test_help_of_a_command(command: Callable[..., Any], arguments: tuple[str, ...], told: str) -> None:
    ended = command(NOWHERE)("help", *arguments)
    assert (ended.status, ended.err) == (0, "")
    assert told in ended.out
    if arguments:
        assert command(NOWHERE)(arguments[0], "-h").out.splitlines()[1:] == ended.out.splitlines()[1:]


def test_a_mistyped_command_is_answered_with_the_nearest(command: Callable[..., Any]) -> None:
    for arguments in (["lst"], ["help", "lst"]):
        ended = command(NOWHERE)(*arguments)
        assert (ended.status, ended.out) == (2, "")
        assert 'unknown command "lst" for "puna", did you mean list' in ended.err


def test_the_version_is_told_with_and_without_a_server(puna: Any, command: Callable[..., Any]) -> None:
    for arguments in ("--version", "-v", "version"):
        ended = puna(arguments)
        assert (ended.status, ended.out, ended.err) == (0, f"puna version is {__version__}\n", "")
    alone = command(NOWHERE)("-v")
    assert (alone.status, alone.out) == (0, f"puna version is {__version__}\n")
    assert "Warning: could not connect" in alone.err
    assert command(NOWHERE)("--version=false", "help").out.startswith("Usage:")


def test_a_server_of_another_version_is_told_beside_our_own(answering: Any, command: Callable[..., Any]) -> None:
    server = answering({"GET /api/version": {"version": "0.9.1", "puna": "99.1"}})
    ended = command(server)("--version")
    assert (ended.status, ended.out) == (0, "puna version is 99.1\n")
    assert ended.err == f"Warning: client version is {__version__}\n"


@pytest.mark.parametrize("arguments", [["wat"], ["run"], ["list", "--wat"], ["cp", "a"]])
def test_wrong_usage_ends_with_2(puna: Any, arguments: list[str]) -> None:
    ended = puna(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert "Error" in ended.err


def test_without_a_server_the_error_says_how_to_start_one(command: Callable[..., Any]) -> None:
    ended = command(NOWHERE)("ps")
    assert (ended.status, ended.out) == (1, "")
    assert re.fullmatch(
        r"Error: could not connect to a Puna server at http://127.0.0.1:9 .*'puna serve'.*\n", ended.err
    )


def test_a_setting_that_cannot_be_read_is_named(command: Callable[..., Any]) -> None:
    ended = command(NOWHERE, PUNA_KEEP_ALIVE="soon")("list")
    assert ended.status == 1
    assert ended.err.startswith("Error: PUNA_KEEP_ALIVE='soon'")


# --------------------------------------------------------------------------------------------------------------- tables


def test_list_has_ollamas_columns(puna: Any) -> None:
    for name in ("list", "ls"):
        header, *rows = puna(name).out.splitlines()
        assert header.split() == ["NAME", "ID", "SIZE", "MODIFIED"]
        assert len({len(row) for row in [header, *rows]}) == 1
        tiny = next(row for row in rows if row.startswith("tiny:latest "))
        assert re.fullmatch(r"tiny:latest +[0-9a-f]{12}    +\d+(\.\d)? KB +.* ago +", tiny)


def test_list_takes_a_prefix_in_any_case(puna: Any) -> None:
    _, *rows = puna("list", "TIN").out.splitlines()
    assert [row.split()[0] for row in rows] == ["tiny:latest"]
    assert len(puna("list", "nope").out.splitlines()) == 1


def test_ps_has_ollamas_columns_and_the_engine_on_request(puna: Any) -> None:
    assert puna("run", "tiny", "hi").status == 0
    header, *rows = puna("ps", "tiny").out.splitlines()
    assert header.split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert re.fullmatch(r"tiny:latest +[0-9a-f]{12} +\S+ \S+ +100% CPU +\d+ +4 minutes from now +", rows[0])
    header, *rows = puna("ps", "-v", "tiny").out.splitlines()
    assert header.split()[-2:] == ["ENGINE", "REASON"]
    assert "scripted" in rows[0]


def test_stop_unloads(puna: Any) -> None:
    assert puna("run", "tools", "hi").status == 0
    stopped = puna("stop", "tools")
    assert (stopped.status, stopped.out, stopped.err) == (0, "", "")
    assert "tools:latest" not in puna("ps").out
    ended = puna("stop", "nope")
    assert (ended.status, ended.err) == (1, 'Error: couldn\'t find model "nope" to stop\n')


def test_show_has_sections(puna: Any) -> None:
    lines = puna("show", "tiny").out.splitlines()
    assert lines[0] == "  Model"
    assert re.fullmatch(r"    architecture +llama +", lines[1])
    assert "  Capabilities" in lines
    assert re.search(r"^    completion +$", "\n".join(lines), re.MULTILINE)
    assert re.search(r"^    tools +described by Puna, in Puna's syntax +$", "\n".join(lines), re.MULTILINE)
    assert "    tools         in the syntax of its own template    " in puna("show", "tools").out.splitlines()
    verbose = puna("show", "-v", "tiny").out
    assert "  Metadata\n" in verbose
    assert "...+" in verbose
    assert "  Tensors\n" in verbose


def test_show_selects_one_text(puna: Any) -> None:
    assert puna("show", "--template", "tiny").out == CHATML
    assert puna("show", "--modelfile", "tiny").out.startswith('# Modelfile generated by "puna show"')
    assert puna("show", "--license", "tiny").out == "\n"
    assert puna("show", "--system", "tiny").out == ""
    both = puna("show", "--parameters", "--system", "tiny")
    assert both.status == 2
    assert both.err == (
        "Error: only one of '--license', '--modelfile', '--parameters', '--system', or '--template' can be specified\n"
    )
    missing = puna("show", "nope")
    assert (missing.status, missing.err) == (1, "Error: model 'nope:latest' not found\n")


# ------------------------------------------------------------------------------------------------------------------ run


def test_run_answers_once(puna: Any) -> None:
    ended = puna("run", "tiny", "Say", "hi.")
    assert (ended.status, ended.out, ended.err) == (0, "Hello there, friend.\n\n", "")


def test_piped_text_comes_first(puna: Any) -> None:
    # The script echoes the prompt that it was given.
    ended = puna("run", "tiny", "PROMPT", "two", stdin="one\n")
    assert re.search(r"one\n PROMPT two", ended.out)


def test_no_prompt_at_all_only_loads(puna: Any) -> None:
    ended = puna("run", "tiny", stdin="")
    assert (ended.status, ended.out) == (0, "")


def test_run_tells_counts_on_stderr(puna: Any) -> None:
    ended = puna("run", "tiny", "--verbose", "hi")
    assert ended.out == "Hello there, friend.\n\n"
    assert ended.err.startswith("total duration: ")
    assert "prompt eval count:" in ended.err


def test_thinking_is_shown_or_hidden(puna: Any) -> None:
    assert puna("run", "thinker", "--think", "THINK").out == (
        "Thinking...\nLet me see.\n...done thinking.\n\nForty-two.\n\n"
    )
    assert puna("run", "thinker", "--think", "--hidethinking", "THINK").out == "Forty-two.\n\n"


def test_a_format_reaches_the_engine(puna: Any) -> None:
    assert puna("run", "tiny", "--format", "json", "JSON").out == '{"ok": true}\n\n'
    assert puna("run", "tiny", "--format", "json", "hi").status == 1


def test_an_embedding_model_prints_its_vector(puna: Any) -> None:
    ended = puna("run", "embedder", "--dimensions", "4", "hello")
    assert len(json.loads(ended.out)) == 4
    empty = puna("run", "embedder")
    assert empty.status == 1
    assert "embedding models require input text" in empty.err


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--think=much"], 2, 'invalid value for --think: "much"'),
        (["--keepalive", "60"], 2, "invalid value for --keepalive"),
        (["--format", "yaml"], 2, "invalid value for --format"),
        (["--think"], 1, "does not support thinking"),
    ],
)
def test_flags_that_cannot_be_honoured(puna: Any, arguments: list[str], status: int, text: str) -> None:
    ended = puna("run", "tiny", *arguments, "hi")
    assert (ended.status, ended.out) == (status, "")
    assert ended.err.startswith("Error: ")
    assert text in ended.err


def test_a_model_that_no_source_has(puna: Any) -> None:
    ended = puna("run", "nope-nope", "hi")
    assert ended.status == 1
    assert "nope-nope" in ended.err
    assert "Traceback" not in ended.err
    assert puna("pull", "nope-nope").status == 1
    assert "PUNA_REGISTRIES" in puna("push", "tiny").err


def test_an_error_in_the_middle_of_an_answer(puna: Any) -> None:
    ended = puna("run", "tiny", "DIE LATE")
    assert ended.status == 1
    assert "scripted death" in ended.err


def test_ctrl_c_ends_quietly_and_frees_the_slot(puna: Any, server: Any) -> None:
    process = puna.start(
        "run",
        "tiny",
        "FOREVER",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # As a terminal starts it: a test run in the background may itself ignore the signal, and pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.read(6) == b"on and"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")
    until(lambda: server.busy() == 0, 30, "the slot to be free")


def test_a_reader_that_leaves_early_is_no_fault(puna: Any) -> None:
    process = puna.start(
        "run", "tiny", "FOREVER", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.read(6)
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(20) == 1
    assert err == b""


# -------------------------------------------------------------------------------------------------- making and removing


def test_a_file_runs_under_a_name_of_its_own(own: Any, weights: Path) -> None:
    ended = own("run", "./My Model.gguf", "hi")
    assert ended.out == "Hello there, friend.\n\n"
    assert "importing My Model.gguf as local/my-model" in ended.err
    assert ended.err.splitlines()[-1] == "success"
    assert "local/my-model:latest" in own("list").out
    # Not a copy: the very same file, or shared blocks.
    (blob,) = (path for path in (own.directory / "models" / "blobs").iterdir() if path.stat().st_size > 2000)
    assert blob.stat().st_ino == weights.stat().st_ino or blob.stat().st_nlink == 1
    assert own("run", "./missing.gguf", "hi").err == "Error: no such file: ./missing.gguf\n"


def test_create_copy_show_remove(own: Any, weights: Path) -> None:
    modelfile = own.directory / "Modelfile"
    modelfile.write_text('FROM "./My Model.gguf"\nSYSTEM Be brief.\nPARAMETER temperature 0.3\nPARAMETER stop END\n')
    created = own("create", "brief")
    assert (created.status, created.out) == (0, "")
    assert created.err.splitlines()[-2:] == ["writing manifest", "success"]
    shown = own("show", "brief").out
    assert "  System\n    Be brief.    \n" in shown
    assert re.search(r"temperature +0\.3 ", shown)
    assert re.search(r'stop +"END" ', shown)
    copied = own("cp", "brief", "gpt-3.5-turbo")
    assert (copied.status, copied.out) == (0, "copied 'brief' to 'gpt-3.5-turbo'\n")
    (own.directory / "Again").write_text(own("show", "--modelfile", "brief").out)
    assert own("create", "again", "-f", "Again").status == 0
    assert own("show", "--parameters", "again").out == own("show", "--parameters", "brief").out
    removed = own("rm", "brief", "again")
    assert (removed.status, removed.out) == (0, "deleted 'brief'\ndeleted 'again'\n")
    again = own("rm", "brief")
    assert (again.status, again.err) == (1, "Error: model 'brief' not found\n")
    missing = own("cp", "brief", "x")
    assert (missing.status, missing.err) == (1, 'Error: model "brief" not found\n')


def test_a_modelfile_that_is_wrong_is_refused(own: Any) -> None:
    (own.directory / "Modelfile").write_text("FROM ./missing.gguf\n")
    ended = own("create", "x")
    assert (ended.status, ended.out) == (1, "")
    assert "no such file: missing.gguf" in ended.err
    assert len(own("list").out.splitlines()) == 1


@pytest.mark.parametrize("arguments", ["create x", "pull ./pipe", "run ./pipe hi", "import pipe"])
def test_a_file_that_is_none_is_not_said_to_be_missing(own: Any, arguments: str) -> None:
    os.mkfifo(own.directory / "pipe")
    (own.directory / "Modelfile").write_text("FROM ./pipe\n")
    ended = own(*arguments.split())
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.endswith("pipe: not a regular file\n")


def test_a_modelfile_that_is_not_there_is_an_error(own: Any, weights: Path) -> None:
    ended = own("create", "x", "-f", "missing")
    assert (ended.status, ended.err) == (1, "Error: no such Modelfile: missing\n")


def test_a_file_is_pulled_by_its_path(own: Any, weights: Path, tmp_path: Path) -> None:
    ended = own("pull", "./My Model.gguf")
    assert ended.status == 0, ended.err
    assert "importing My Model.gguf as local/my-model" in ended.err
    assert own("pull", weights.as_uri(), "--name", "mine:v1").status == 0
    (tmp_path / "several").mkdir()
    weights.rename(tmp_path / "several" / "one.gguf")
    assert own("pull", "./several").status == 0
    listed = own("list").out
    assert all(name in listed for name in ("local/my-model:latest", "mine:v1", "local/several:latest"))
    (tmp_path / "several" / "model.safetensors").write_bytes(b"x")
    for arguments, status, words in (
        (("./none.gguf",), 1, "no such file: none.gguf"),
        (("file://far/x.gguf",), 1, "names no file of this machine"),
        (("./several",), 1, "'puna create NAME' with 'FROM several' converts them"),
        (("smollm2", "--name", "x"), 2, "--name is for a model that comes from a file"),
        (("./several/one.gguf", "--name", "a b"), 1, "invalid model name"),
    ):
        ended = own("pull", *arguments)
        assert (ended.status, words in ended.err) == (status, True), ended.err
