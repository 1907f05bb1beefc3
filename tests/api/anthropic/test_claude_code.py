"""The coding agent that speaks messages: it starts, converses, and runs a tool loop. The script says what the model
answers. By hand (`PUNA_TEST_CLAUDE=1`): the agent is 400 MB.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.conftest import TOOL_TEMPLATE, TinyModel, add_model, run_server
from fakes.node import SCRIPTS, Node
from puna.settings import Settings
from puna.store.library import Library

pytestmark = pytest.mark.skipif(
    "PUNA_TEST_CLAUDE" not in os.environ, reason="by hand: PUNA_TEST_CLAUDE=1 fetches 400 MB from npm's registry"
)
ROOM = 200_000
"""Tokens: those of this engine are bytes, and an agent's instructions are long."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("work")
    (directory / "notes.txt").write_text("The answer is FORTY-TWO.\n")
    return directory


@pytest.fixture(scope="module")
def coded(settings: Settings, work: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("agents")
    add_model(Library.open(directory / "models"), directory, TinyModel("agent", TOOL_TEMPLATE, context=2 * ROOM))
    reads = {"name": "Read", "arguments": {"file_path": str(work / "notes.txt")}}
    script = {
        "rules": [
            {"when": {"contains": "FORTY-TWO"}, "answer": {"text": "The notes say forty-two."}},
            {"when": {"contains": "Read my notes"}, "answer": {"text": "I look.", "tool_calls": [reads]}},
        ],
        "default": {"text": "Hello there, friend."},
    }
    own = replace(settings, models=directory / "models", context_length=ROOM, num_parallel=1)
    with run_server(own, script) as running:
        yield running


@pytest.fixture(scope="module")
def claude() -> Node:
    """npm's `@anthropic-ai/claude-code`."""
    return Node(SCRIPTS / "claude")


def said(claude: Node, server: Any, work: Path, home: Path, prompt: str) -> list[dict[str, Any]]:
    """What it tells of one prompt. Telemetry is off, and nothing but the server can be reached."""
    nowhere = "http://127.0.0.1:9"
    done = subprocess.run(
        [
            *(claude.directory / "node_modules" / ".bin" / "claude", "-p", prompt),
            *("--output-format", "stream-json", "--verbose"),
        ],
        cwd=work,
        env={
            "PATH": claude.environment["PATH"],
            "HOME": str(home),
            "ANTHROPIC_BASE_URL": server.url,
            "ANTHROPIC_API_KEY": "unused",
            "ANTHROPIC_MODEL": "agent",
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": "agent",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_AUTOUPDATER": "1",
            "HTTP_PROXY": nowhere,
            "HTTPS_PROXY": nowhere,
            "NO_PROXY": "127.0.0.1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_agent_converses(claude: Node, coded: Any, work: Path, tmp_path: Path) -> None:
    result = said(claude, coded, work, tmp_path, "Hi")[-1]
    assert (result["result"], result["is_error"], result["num_turns"]) == ("Hello there, friend.", False, 1)


def test_the_agent_runs_a_tool_loop(claude: Node, coded: Any, work: Path, tmp_path: Path) -> None:
    told = said(claude, coded, work, tmp_path, "Read my notes")
    assert (told[-1]["result"], told[-1]["num_turns"]) == ("The notes say forty-two.", 2)
    blocks = [block for event in told if event["type"] == "assistant" for block in event["message"]["content"]]
    assert [block["type"] for block in blocks] == ["text", "tool_use", "text"]
    assert blocks[1]["name"] == "Read"
