"""Runners on the real model: `start` starts some for one test; a module that only reads shares one (see test_llama)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.runners import Start, starting


@pytest.fixture
async def start(smollm2_gguf: Path) -> AsyncIterator[Start]:
    async with starting(smollm2_gguf) as start:
        yield start
