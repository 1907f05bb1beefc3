"""Push and pull by Ollama's own libraries, through the server, to a real registry and back."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from ollama import Client, ResponseError

from fakes.node import Node
from fakes.registries import TestRegistry, registry_binary, serve_registry
from puna.model.manifest import parse_manifest
from puna.model.name import Name
from puna.store.library import Library


@pytest.fixture(scope="module")
def registry(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRegistry]:
    binary = registry_binary(pytestconfig.cache.mkdir("docker-registry"))
    with serve_registry(binary, tmp_path_factory.mktemp("registry")) as served:
        yield served


@pytest.fixture
def copied(serving: Callable[..., AbstractContextManager[Any]], store: Path, tmp_path: Path) -> Iterator[Any]:
    """A server on a store of its own, which the test may change."""
    shutil.copytree(store, tmp_path / "models")
    with serving(models=tmp_path / "models", registries=()) as server:
        yield server


@pytest.fixture
def client(copied: Any) -> Iterator[Client]:
    made = Client(copied.url)
    yield made
    made._client.close()


def test_the_python_library(client: Client, registry: TestRegistry, tmp_path: Path) -> None:
    name = f"{registry.host}/some/tiny:v1"
    client.copy("tiny", name)
    library = Library.open(tmp_path / "models")
    manifest = library.manifest_bytes(Name.parse(name))
    blobs = {str(layer.digest): layer.size for layer in parse_manifest(manifest).blobs}

    steps = list(client.push(name, insecure=True, stream=True))
    assert [step.status for step in steps if step.digest is None] == [
        "retrieving manifest",
        "pushing manifest",
        "success",
    ]
    assert {step.digest: step.completed for step in steps if step.digest and step.completed == step.total} == blobs

    client.delete(name)
    client.delete("tiny")
    steps = list(client.pull(name, insecure=True, stream=True))
    assert steps[-1].status == "success"
    done = {step.digest: step.completed for step in steps if step.digest and step.completed == step.total}
    assert done == blobs
    assert library.manifest_bytes(Name.parse(name)) == manifest
    assert client.generate(name, "Hi").response

    assert client.pull(name, insecure=True).status == "success"
    # What a mount is for: a model that was made from one that the registry has.
    client.create(f"{registry.host}/other/child", from_=name, system="Be brief.")
    assert client.push(f"{registry.host}/other/child", insecure=True).status == "success"
    assert any('" 201 ' in line for line in registry.requests("POST", "mount="))


def test_the_javascript_library(copied: Any, client: Client, registry: TestRegistry, node: Node) -> None:
    name = f"{registry.host}/some/from-node:v1"
    client.copy("tiny", name)
    seen = node.run("transfer.mjs", copied.url, name)
    assert [seen[way][-1]["status"] for way in ("push", "pull")] == ["success", "success"]
    assert any(
        step.get("digest") and step["completed"] == step["total"] for step in seen["push"] if "completed" in step
    )


def test_what_is_wrong_is_told(client: Client, registry: TestRegistry) -> None:
    with pytest.raises(ResponseError, match="pull model manifest: file does not exist"):
        client.pull(f"{registry.host}/no/such", insecure=True)
    with pytest.raises(ResponseError) as caught:
        client.push(f"{registry.host}/no/such", insecure=True)
    assert caught.value.status_code == 404
    with pytest.raises(ResponseError, match="use --insecure"):
        client.pull(f"{registry.host}/no/such")
    with pytest.raises(ResponseError, match="PUNA_REGISTRIES"):
        client.pull("169.254.169.254/latest/meta-data", insecure=True)


def test_a_page_and_a_stranger_reach_no_private_registry(copied: Any, registry: TestRegistry) -> None:
    body = {"model": f"{registry.host}/some/tiny", "insecure": True, "stream": False}
    answer = copied.post("/api/pull", body, headers={"Origin": "http://localhost:3000"})
    assert answer.status == 403
    assert "is not called" in answer.json["error"]
