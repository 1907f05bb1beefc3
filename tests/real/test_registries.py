"""The default model goes to a real registry and comes back, with and without tokens."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from fakes.registries import TestRegistry, registry_binary, serve_registry, serve_tokens
from puna.model.gguf import read_header
from puna.model.manifest import CONFIG_TYPE, MODEL_TYPE, Layer, Manifest
from puna.model.model import config_of
from puna.model.name import Name
from puna.sources.net import Net
from puna.sources.registry.credentials import Credentials
from puna.sources.registry.registry import Registry
from puna.sources.source import Terms
from puna.sources.sources import Sources
from puna.store.library import Library

TERMS = Terms(insecure=True, literal=True, local=True)
LOGIN = base64.b64encode(b"ada:secret").decode()


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    async with AsyncExitStack() as stack:
        made = Net()
        stack.push_async_callback(made.close)
        yield made


@pytest.mark.parametrize("guarded", [False, True], ids=["open", "with tokens"])
async def test_there_and_back(
    net: Net, smollm2_gguf: Path, tmp_path: Path, pytestconfig: pytest.Config, guarded: bool
) -> None:
    binary = registry_binary(pytestconfig.cache.mkdir("docker-registry"))
    with ExitStack() as stack:
        auth = stack.enter_context(serve_tokens(tmp_path, {"ada": "secret"})).auth if guarded else None
        served = stack.enter_context(serve_registry(binary, tmp_path, auth))
        await _there_and_back(net, served, smollm2_gguf, tmp_path)


async def _there_and_back(net: Net, served: TestRegistry, smollm2_gguf: Path, root: Path) -> None:
    environment = {"DOCKER_AUTH_CONFIG": json.dumps({"auths": {served.host: {"auth": LOGIN}}})}
    registry = Registry(net, Credentials(environment, None))
    here, there = Library.open(root / "here"), Library.open(root / "there")
    name = Name.parse(f"{served.host}/library/smollm2:135m")
    header = read_header(smollm2_gguf)
    layer = Layer(MODEL_TYPE, here.blobs.add_file(smollm2_gguf), smollm2_gguf.stat().st_size)
    here.write_manifest(name, Manifest(here.blobs.add_layer(CONFIG_TYPE, config_of(header).dump()), (layer,)))

    for _ in range(2):
        uploads = len(served.requests("POST", "/blobs/uploads/"))
        async for _step in Sources(here, [registry]).push(name, TERMS):
            pass
    assert uploads
    assert len(served.requests("POST", "/blobs/uploads/")) == uploads

    async for _step in Sources(there, [registry]).pull(name, TERMS):
        pass
    assert there.manifest_bytes(name) == here.manifest_bytes(name)
    model = there.resolve(name)
    assert model.weights_digest == layer.digest
    assert there.blobs.fault(layer.digest, layer.size, anew=True) is None
