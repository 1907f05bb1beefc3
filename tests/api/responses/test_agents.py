"""Agents that speak responses: they start, converse, and run a tool loop. The script says what the model answers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from api.conftest import TOOL_TEMPLATE, TinyModel, add_model, run_server
from fakes.node import SCRIPTS, Node
from puna.settings import Settings
from puna.store.library import Library

ROOM = 200_000
"""Tokens: those of this engine are bytes, and an agent's instructions are long."""

COMMAND = "echo RAN-$((40 + 2))"
SCRIPT: dict[str, Any] = {
    "rules": [
        {"when": {"contains": "RAN-42"}, "answer": {"text": "The command has run."}},
        {"when": {"contains": "sunny in Paris"}, "answer": {"text": "It is sunny in Paris."}},
        {
            "when": {"contains": "Run it"},
            "answer": {"tool_calls": [{"name": "exec_command", "arguments": {"cmd": COMMAND}}]},
        },
        {
            "when": {"contains": "Weather?"},
            "answer": {"text": "I look.", "tool_calls": [{"name": "weather", "arguments": {"city": "Paris"}}]},
        },
    ],
    "default": {"text": "Hello there, friend."},
}


@pytest.fixture(scope="module")
def server(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("agents")
    library = Library.open(directory / "models")
    add_model(library, directory, TinyModel("agent", TOOL_TEMPLATE, context=2 * ROOM))
    own = replace(
        settings,
        models=directory / "models",
        state=directory / "state",
        context_length=ROOM,
        num_parallel=1,
    )
    with run_server(own, SCRIPT) as running:
        yield running


# ------------------------------------------------------------------------------------------------------- openai-agents

asked: list[str] = []


def weather(city: str) -> str:
    """The weather of a city."""
    asked.append(city)
    return f"sunny in {city}"


@pytest.fixture
def kit() -> Any:
    """Imported late: it takes seconds, and each process that runs tests collects this file."""
    import agents

    return agents


@pytest.fixture
async def agent(server: Any, kit: Any) -> Any:
    kit.set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        model = kit.OpenAIResponsesModel("agent", client)
        yield kit.Agent(name="weather", instructions="Be brief.", model=model, tools=[kit.function_tool(weather)])


async def test_the_kit_converses(agent, kit):
    assert (await kit.Runner.run(agent, "Hi")).final_output == "Hello there, friend."


async def test_the_kit_runs_a_tool_loop(agent, kit):
    asked.clear()
    result = await kit.Runner.run(agent, "Weather?")
    assert (result.final_output, asked) == ("It is sunny in Paris.", ["Paris"])
    streamed = kit.Runner.run_streamed(agent, "Weather?")
    kinds = [event.type async for event in streamed.stream_events()]
    assert streamed.final_output == "It is sunny in Paris."
    assert kinds.count("run_item_stream_event") >= 3


async def test_the_kit_goes_on_from_what_the_server_remembers(agent, kit):
    first = await kit.Runner.run(agent, "Weather?")
    again = await kit.Runner.run(agent, "Thanks", previous_response_id=first.last_response_id)
    assert again.final_output == "It is sunny in Paris."


async def test_the_kit_remembers_by_itself(agent, kit):
    session = kit.SQLiteSession("one")
    agent = agent.clone(model_settings=kit.ModelSettings(store=False, response_include=["reasoning.encrypted_content"]))
    await kit.Runner.run(agent, "Weather?", session=session)
    assert (await kit.Runner.run(agent, "Thanks", session=session)).final_output == "It is sunny in Paris."
    session.close()


# --------------------------------------------------------------------------------------------------------------- codex

CONFIG = """
model = "agent"
model_provider = "puna"
web_search = "disabled"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
analytics.enabled = false
feedback.enabled = false
otel.exporter = "none"

[model_providers.puna]
name = "Puna"
base_url = "{url}/v1"
wire_api = "responses"
"""


@pytest.fixture(scope="module")
def codex() -> Node:
    """The coding agent of npm's `@openai/codex`, its telemetry off."""
    return Node(SCRIPTS / "codex")


def work(codex: Node, server: Any, home: Path, *words: str, more: str = "") -> list[dict[str, Any]]:
    """What one turn of it says, as events. `more` of its provider's configuration."""
    (home / ".codex").mkdir(exist_ok=True)
    (home / ".codex" / "config.toml").write_text(CONFIG.replace("{url}", server.url) + more)
    done = subprocess.run(
        [codex.directory / "node_modules" / ".bin" / "codex", "exec", "--json", "--skip-git-repo-check", *words],
        cwd=home,
        env={**codex.environment, "HOME": str(home), "CODEX_HOME": str(home / ".codex")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def messages(events: list[dict[str, Any]]) -> list[str]:
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    return [item["text"] for item in items if item["type"] == "agent_message"]


def test_the_coding_agent_converses_and_goes_on(codex, server, tmp_path):
    first = work(codex, server, tmp_path, "Hi")
    assert messages(first) == ["Hello there, friend."]
    assert messages(work(codex, server, tmp_path, "resume", "--last", "And again")) == ["Hello there, friend."]


def test_the_coding_agent_runs_a_command(codex, server, tmp_path):
    events = work(codex, server, tmp_path, "Run it")
    [ran] = [
        event["item"]
        for event in events
        if event["type"] == "item.completed" and event["item"]["type"] == "command_execution"
    ]
    assert (ran["aggregated_output"].strip(), ran["exit_code"]) == ("RAN-42", 0)
    assert messages(events) == ["The command has run."]


def test_the_coding_agent_keeps_one_connection(codex, server, tmp_path):
    """Over a WebSocket, where its first message makes the prompt ready."""
    connections = 'method="GET",route="/v1/responses"'
    before = server.get("/metrics").body.decode().count(connections)
    events = work(codex, server, tmp_path, "Run it", more="supports_websockets = true\n")
    assert messages(events) == ["The command has run."]
    assert server.get("/metrics").body.decode().count(connections) > before
