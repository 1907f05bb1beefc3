"""What the tests of Anthropic's dialect share: `client`, and `levels`, a server whose model `levels` knows efforts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic

from api.conftest import SCRIPT, THINK_TEMPLATE, TinyModel, add_model, run_server
from puna.store.library import Library

_LEVELS = THINK_TEMPLATE.replace(
    "{% if enable_thinking", "{% if reasoning_effort %}Effort: {{ reasoning_effort }}\n{% endif %}{% if enable_thinking"
)


@pytest.fixture(scope="session")
def client(server: Any) -> Anthropic:
    return Anthropic(base_url=server.url, api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def levels(settings: Any, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("levels")
    models = directory / "models"
    shutil.copytree(store, models)
    add_model(Library.open(models), directory, TinyModel("levels", _LEVELS))
    with run_server(replace(settings, models=models), SCRIPT) as running:
        yield running
