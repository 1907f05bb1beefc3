"""Completion, asked for by the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.terminal import on_terminal

BIN = str(Path(sys.executable).parent)
NOWHERE = "127.0.0.1:9"


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def by_bash(puna: Any, line: str) -> list[str]:
    """What Bash offers for a line, with the script that `puna completion bash` prints."""
    asking = (
        'eval "$(puna completion bash)"; COMP_LINE="$1"; COMP_POINT=${#1}; COMP_WORDBREAKS=$\' \\t\\n"><=;|&(:\'; '
        '_puna_completion puna; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = {**puna.environment, "PATH": f"{BIN}:{puna.environment['PATH']}"}
    ended = subprocess.run(
        [shell("bash"), "--norc", "-c", asking, "bash", line],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.stderr == ""
    return [word for word in ended.stdout.splitlines() if word]


def offered_at_last(puna: Any, line: str) -> list[str]:
    """A server under load may not answer in the time that a shell gives it: then nothing is offered, once."""
    return next((found for _ in range(20) if (found := by_bash(puna, line))), [])


@pytest.fixture
def without_server(command: Callable[..., Any], store: Path) -> Any:
    """The store of the tests, and no server."""
    return command(NOWHERE, PUNA_MODELS=str(store))


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("puna ru", ["run"]),
        ("puna run t", ["thinker", "tiny", "tools"]),
        ("puna run --verbose ti", ["tiny"]),
        ("puna run --think=low ti", ["tiny"]),
        ("puna rm tiny t", ["thinker", "tools"]),
        ("puna cp ti", ["tiny"]),
        ("puna cp tiny ", []),
        ("puna show --lic", ["--license"]),
        ("puna help ru", ["run"]),
        ("puna completion z", ["zsh"]),
        ("puna run tiny hi", []),
        ("puna run --verbose=perhaps ti", []),
        ("puna wat ti", []),
        ("puna run 'ti", ["tiny"]),
    ],
)
def test_bash_is_offered_commands_options_and_models(without_server: Any, line: str, offered: list[str]) -> None:
    assert by_bash(without_server, line) == offered


def test_bash_is_offered_every_model(without_server: Any, store: Path) -> None:
    assert by_bash(without_server, "puna run ") == sorted(
        path.parent.name for path in store.glob("manifests/*/*/*/latest")
    )


def test_bash_gets_what_follows_a_colon(command: Callable[..., Any], tmp_path: Path) -> None:
    for tag in ("135m", "1.7b"):
        path = tmp_path / "models" / "manifests" / "registry.ollama.ai" / "library" / "smollm2" / tag
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    puna = command(NOWHERE, PUNA_MODELS=str(tmp_path / "models"))
    assert by_bash(puna, "puna run smollm2:") == ["1.7b", "135m"]
    assert by_bash(puna, "puna run smollm2:13") == ["135m"]
    assert by_bash(puna, "puna run smol") == ["smollm2:1.7b", "smollm2:135m"]


@pytest.mark.parametrize(
    "environment", [{"PUNA_MODELS": "/nowhere/at/all"}, {"PUNA_HOST": "::::"}, {"PUNA_DEBUG": "x"}]
)
def test_nothing_is_offered_and_nothing_said_when_nothing_is_known(
    command: Callable[..., Any], environment: dict[str, str]
) -> None:
    assert by_bash(command(NOWHERE, **environment), "puna run t") == []


def test_the_server_knows_best(puna: Any) -> None:
    port = puna.environment["PUNA_HOST"].rpartition(":")[2]
    elsewhere = replace(puna, environment={**puna.environment, "PUNA_HOST": NOWHERE, "PUNA_MODELS": "/nowhere"})
    assert offered_at_last(puna, "puna run t") == ["thinker", "tiny", "tools"]
    assert offered_at_last(elsewhere, f"puna run --port {port} ti") == ["tiny"]
    assert offered_at_last(elsewhere, f"puna show --host=127.0.0.1:{port} ti") == ["tiny"]
    assert by_bash(elsewhere, "puna run ti") == []
    for model in ("tools", "tiny"):
        assert puna("run", model, "hi").status == 0
    assert offered_at_last(puna, "puna stop to") == ["tools"]
    assert puna("stop", "tools").status == 0
    assert "tools" not in offered_at_last(puna, "puna stop t")


def test_another_program_on_the_port_is_not_believed(
    command: Callable[..., Any], answering: Callable[..., str], store: Path
) -> None:
    url = answering({"GET /api/tags": {"models": [{"name": "llama3:8b"}]}})
    assert by_bash(command(url, PUNA_MODELS=str(store)), "puna run ti") == ["tiny"]
    assert by_bash(command(url, PUNA_MODELS=str(store)), "puna run llama") == []


def test_completing_imports_nothing_heavy(without_server: Any) -> None:
    code = (
        "import sys\nfrom puna.cli.main import main\n"
        "try:\n    main()\nfinally:\n    print('\\nIMPORTED', *sys.modules, flush=True)"
    )
    environment = {**without_server.environment, "_PUNA_COMPLETE": "bash_complete", "COMP_LINE": "puna run ti"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30)
    offered, _, imported = ended.stdout.partition("IMPORTED")
    assert offered.split() == ["plain,tiny"]
    heavy = {"asyncio", "aiohttp", "rich", "pydantic", "prompt_toolkit", "starlette", "structlog", "puna.client"}
    assert heavy.isdisjoint(imported.split())


def test_zsh_completes_a_model(without_server: Any, tmp_path: Path) -> None:
    (tmp_path / ".zshrc").write_text(
        'PS1="ready> "; autoload -Uz compinit; compinit -u; eval "$(puna completion zsh)"\n'
    )
    environment = {
        **without_server.environment,
        "PATH": f"{BIN}:{without_server.environment['PATH']}",
        "ZDOTDIR": str(tmp_path),
        "HOME": str(tmp_path),
    }
    with on_terminal([shell("zsh"), "-i"], environment, tmp_path) as terminal:
        terminal.expect("ready> ")
        terminal.type("puna show embe\t")
        terminal.expect("puna show embedder")


def test_fish_completes_a_model(without_server: Any, tmp_path: Path) -> None:
    environment = {
        **without_server.environment,
        "PATH": f"{BIN}:{without_server.environment['PATH']}",
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    asking = 'puna completion fish | source; complete --do-complete "puna show t"'
    ended = subprocess.run(
        [shell("fish"), "--no-config", "-c", asking], env=environment, capture_output=True, text=True, timeout=30
    )
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["thinker", "tiny", "tools"]
