"""`list`, `show`, `cp`, `rm`, `create` and `pull` do the same without a server as with one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.gguf_files import CHATML, gguf_bytes, write_tiny_llama
from fakes.stores import put_model

NOWHERE = "127.0.0.1:9"
"""Nothing listens there."""


@pytest.fixture
def alone(command: Callable[..., Any], store: Path, tmp_path: Path) -> Any:
    """The command on a copy of the store, without a server."""
    shutil.copytree(store, tmp_path / "models")
    return command(NOWHERE, PUNA_MODELS=str(tmp_path / "models"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "nothing"),
        ("show", "tiny", "--modelfile"),
        ("show", "tiny", "--template"),
        ("show", "nope"),
        ("cp", "nope", "x"),
        ("cp", "tiny", "not/a/good/name/at/all"),
        ("rm", "nope"),
        ("pull", "nope-nope"),
        ("push", "tiny"),
        ("create", "x", "-f", "missing"),
    ],
    ids=" ".join,
)
def test_the_same_words_and_status(
    command: Callable[..., Any], serving: Any, store: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    models = tmp_path / "models"
    shutil.copytree(store, models)
    without = command(NOWHERE, PUNA_MODELS=str(models))(*arguments)
    with serving(models=models) as server:
        assert without == command(server.url)(*arguments)


def test_making_copying_removing(alone: Any, tmp_path: Path) -> None:
    weights = write_tiny_llama(tmp_path / "mine.gguf", chat_template=CHATML)
    (tmp_path / "Modelfile").write_text("FROM ./mine.gguf\nSYSTEM Be brief.\n")
    created = alone("create", "mine")
    assert (created.status, created.out) == (0, ""), created.err
    assert created.err.splitlines()[-1] == "success"
    assert alone("cp", "mine", "yours").out == "copied 'mine' to 'yours'\n"
    assert "Be brief." in alone("show", "yours").out
    assert alone("rm", "mine", "yours").out == "deleted 'mine'\ndeleted 'yours'\n"
    assert "mine" not in alone("list").out
    assert weights.exists()


def test_what_is_listed(alone: Any) -> None:
    header, *rows = alone("list", "TIN").out.splitlines()
    assert header.split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert [row.split()[0] for row in rows] == ["tiny:latest"]


def test_an_empty_store_is_listed(command: Callable[..., Any], tmp_path: Path) -> None:
    ended = command(NOWHERE, PUNA_MODELS=str(tmp_path / "none"))("list")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert not (tmp_path / "none").exists()


def test_not_for_another_machine(command: Callable[..., Any], store: Path) -> None:
    ended = command("https://127.0.0.1:9", PUNA_MODELS=str(store))("list")
    assert (ended.status, ended.out) == (1, "")
    assert "could not connect" in ended.err


def test_ctrl_c_leaves_nothing_behind(command: Callable[..., Any], tmp_path: Path) -> None:
    """In the middle of a pull: from an index that accepts and never answers."""
    from fakes.strangers import tcp

    began: list[object] = []
    with tcp(began.append) as port:
        environment = {
            "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple",
            "PIP_RETRIES": "0",
            "PIP_CONFIG_FILE": "/dev/null",
        }
        puna = command(NOWHERE, PUNA_MODELS=str(tmp_path / "models"), **environment)
        process = puna.start(
            "pull",
            "smollm2",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            while not began and process.poll() is None:
                pass
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    assert b"ended before" not in err
    assert not list((tmp_path / "models").rglob("*.gguf"))


def test_an_ollamas_store_is_offered_to_who_has_no_models(command: Callable[..., Any], tmp_path: Path) -> None:
    theirs = tmp_path / "home" / ".ollama" / "models"
    put_model(theirs, "theirs/latest", gguf_bytes(chat_template=CHATML))
    home = {"HOME": str(tmp_path / "home"), "USERPROFILE": str(tmp_path / "home")}
    ended = command(NOWHERE, PUNA_MODELS=str(tmp_path / "models"), **home)("list")
    assert f"1 model of an Ollama lies in {theirs}: with PUNA_READ_ONLY_MODELS={theirs} " in ended.err
    both = os.pathsep.join((str(tmp_path / "models"), str(theirs)))
    ended = command(NOWHERE, PUNA_MODELS=both, **home)("list")
    assert (ended.out.splitlines()[1].split()[0], ended.err) == ("theirs:latest", "")
