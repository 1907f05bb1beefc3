"""These tests need what is installed on x86-64 only; elsewhere they are not collected."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore_glob = [] if find_spec("openvino") else ["test_*.py"]


@pytest.fixture(scope="session")
def shipped(request: pytest.FixtureRequest) -> Path:
    """The shipped model's file: PUNA_TEST_MODEL if set, else from the store that the other tests pulled into."""
    named = os.environ.get("PUNA_TEST_MODEL")
    if named:
        return Path(named)
    from puna.model.name import Name
    from puna.store.library import Library

    models: Path = request.getfixturevalue("pulled")
    return Library.open(models).resolve(Name.parse("smollm2:135m")).weights
