"""Registries on this machine, one for a session each: without authorization, and with tokens."""

from collections.abc import Iterator

import pytest

from fakes.registries import TestRegistry, Tokens, registry_binary, serve_registry, serve_tokens

USERS = {"ada": "secret word"}


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
