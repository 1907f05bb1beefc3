"""Registries on this machine, one for a session each: without authorization, and with tokens; stores beside them."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from fakes.gguf_files import CHATML, Tensor, gguf_bytes
from fakes.registries import TestRegistry, Tokens, registry_binary, serve_registry, serve_tokens
from fakes.stores import put_model
from puna.model.name import Name
from puna.sources.download import Parts
from puna.sources.net import Destinations, Net, Patience
from puna.sources.registry.credentials import Credentials
from puna.sources.registry.registry import Registry
from puna.sources.source import Terms
from puna.sources.sources import Sources
from puna.store.library import Library
from puna.types import Progress

USERS = {"ada": "secret word", "bob": "word"}
"""Ada may do all, bob what is public."""


@pytest.fixture(scope="session")
def binary(pytestconfig: pytest.Config) -> str:
    return registry_binary(pytestconfig.cache.mkdir("docker-registry"))


@pytest.fixture(scope="session")
def registry(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRegistry]:
    with serve_registry(binary, tmp_path_factory.mktemp("registry")) as served:
        yield served


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokens]:
    with serve_tokens(tmp_path_factory.mktemp("tokens"), USERS) as served:
        yield served


@pytest.fixture(scope="session")
def guarded(binary: str, tokens: Tokens, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestRegistry]:
    """Lets in who has a token of `tokens`."""
    with serve_registry(binary, tmp_path_factory.mktemp("guarded"), tokens.auth) as served:
        yield served


MODEL = gguf_bytes(chat_template=CHATML, tensors=[Tensor("a", (64, 3200))])
NEAR = Terms(insecure=True, literal=True, local=True)


class Place:
    """A store of its own, as another machine has it."""

    def __init__(self, root: Path, environment: dict[str, str] | None = None, **options: object) -> None:
        self.library = Library.open(root / "models")
        allowed = options.pop("allowed", ())
        self.net = Net(
            destinations=Destinations(allowed=allowed),  # type: ignore[arg-type]
            patience=Patience(first=0.01, most=0.02, stall=2.0),
        )
        self.registry = Registry(
            self.net,
            Credentials(environment or {}, None),
            own_key=root / "key" / "id_ed25519",
            parts=Parts(least=256 * 1024, most=256 * 1024),
            **options,  # type: ignore[arg-type]
        )
        self.sources = Sources(self.library, [self.registry])

    def put(self, name: Name, system: bytes = b"Be brief.", weights: bytes = MODEL) -> bytes:
        layers = {"system": system, "license": b"MIT"}
        put_model(self.library.root, "/".join(name.parts), weights, layers, config={"model_format": "gguf"})
        return self.library.manifest_bytes(name)

    async def push(self, name: Name, terms: Terms = NEAR) -> list[Progress]:
        return [step async for step in self.sources.push(name, terms)]

    async def pull(self, name: Name, terms: Terms = NEAR) -> list[Progress]:
        return [step async for step in self.sources.pull(name, terms)]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(name: str = "here", environment: dict[str, str] | None = None, **options: object) -> Place:
        made.append(Place(tmp_path / name, environment, **options))
        return made[-1]

    yield make
    for one in made:
        await one.net.close()


def login(host: str, user: str = "ada", password: str = "secret word") -> dict[str, str]:
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"DOCKER_AUTH_CONFIG": json.dumps({"auths": {f"http://{host}/v2/": {"auth": auth}}})}
