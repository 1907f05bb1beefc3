"""Texts of every language that strangers write, made at random: no crash, no hang, no error but the documented ones.

A few of each run with the other tests. By hand, for minutes: `PUNA_TEST_FUZZ=20000 pytest -n 0 tests/fuzz -k jinja`.
What once found a fault is kept in `corpus`, a file for each target, a JSON value a line. Bodies of requests are tried
in `tests/api/server/test_any_input.py`, by the same variable.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from fuzz.targets import TARGETS, Target, bounded

CORPUS = Path(__file__).with_name("corpus")
EXAMPLES = int(os.environ.get("PUNA_TEST_FUZZ", "25"))


@pytest.fixture
def opened() -> Iterator[Callable[[str], Target]]:
    """Targets by their names, closed at the end."""
    with ExitStack() as stack:

        def target(name: str) -> Target:
            made = TARGETS[name]()
            stack.callback(made.close)
            return made

        yield target


@pytest.mark.timeout(0 if EXAMPLES > 1000 else 300)
@pytest.mark.parametrize("name", TARGETS)
def test_no_text_breaks_it(name: str, opened: Callable[[str], Target]) -> None:
    target = opened(name)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[*HealthCheck])
    @given(target.made)
    def whatever(text: Any) -> None:
        with bounded():
            target.tried(text)

    whatever()


def kept() -> list[tuple[str, str]]:
    return [(path.stem, line) for path in sorted(CORPUS.glob("*.jsonl")) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("name", "line"), kept())
def test_what_broke_it_once_does_not_again(name: str, line: str, opened: Callable[[str], Target]) -> None:
    """Bytes are kept in base64."""
    value = json.loads(line)
    with bounded():
        opened(name).tried(base64.b64decode(value) if name == "header" else value)
