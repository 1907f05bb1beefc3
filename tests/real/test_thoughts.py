"""A real model's thought ends at its budget, in every dialect, whole and in a stream, or when a further request ends
it; and the answer goes on. On each engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import Program

MODELFILE = '''FROM smollm2
TEMPLATE """{{ range .Messages }}<|im_start|>{{ .Role }}
{{ if .Thinking }}<think>
{{ .Thinking }}
</think>

{{ end }}{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
<think>
"""
'''
"""Whoever answers begins with a thought."""

BUDGET, MOST = 5, 14
PROMPT = "Tell me a long story of a king and his horse."
TURNS = [{"role": "user", "content": PROMPT}]
GREEDY = {"temperature": 0, "num_predict": MOST}
ASKS: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": TURNS, "options": GREEDY, "think": True},
    "/api/generate": {"prompt": PROMPT, "options": GREEDY, "think": True},
    "/v1/chat/completions": {"messages": TURNS, "temperature": 0, "max_tokens": MOST},
    "/v1/responses": {"input": PROMPT, "temperature": 0, "max_output_tokens": MOST},
    "/v1/messages": {"messages": TURNS, "temperature": 0, "max_tokens": MOST, "thinking": {"type": "adaptive"}},
}
BUDGETS: dict[str, dict[str, Any]] = {
    "/api/chat": {"think_budget": BUDGET},
    "/api/generate": {"think_budget": BUDGET},
    "/v1/chat/completions": {"reasoning_budget_tokens": BUDGET},
    "/v1/responses": {"reasoning_budget_tokens": BUDGET},
    "/v1/messages": {"thinking": {"type": "enabled", "budget_tokens": BUDGET}},
}


@pytest.fixture(scope="module")
def thinker(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Program:
    path: Path = tmp_path_factory.mktemp("thinker") / "Modelfile"
    path.write_text(MODELFILE)
    made = program.command("create", "thinker", "-f", str(path))
    assert made.returncode == 0, made.stderr
    return program


def parted(path: str, answer: dict[str, Any]) -> tuple[str, str]:
    """The thought and the text of a whole answer."""
    match path:
        case "/api/chat":
            return answer["message"]["thinking"], answer["message"]["content"]
        case "/api/generate":
            return answer["thinking"], answer["response"]
        case "/v1/chat/completions":
            message = answer["choices"][0]["message"]
            return message["reasoning"], message["content"]
        case "/v1/responses":
            thought, message = answer["output"]
            return thought["content"][0]["text"], message["content"][0]["text"]
        case _:
            thought, text = answer["content"]
            return thought["thinking"], text["text"]


def delta(path: str, event: dict[str, Any]) -> tuple[str, str]:
    """What a part of a stream adds to the thought and to the text."""
    match path:
        case "/api/chat":
            return event["message"].get("thinking") or "", event["message"]["content"]
        case "/api/generate":
            return event.get("thinking") or "", event["response"]
        case "/v1/chat/completions":
            found = event["choices"][0]["delta"] if event["choices"] else {}
            return found.get("reasoning") or "", found.get("content") or ""
        case "/v1/responses":
            added = event.get("delta", "")
            kind = event["type"]
            return (
                added if kind == "response.reasoning_text.delta" else "",
                added if kind == "response.output_text.delta" else "",
            )
        case _:
            found = event.get("delta", {})
            return found.get("thinking") or "", found.get("text") or ""


def events(stream: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in stream.iter_lines():
        text = line.removeprefix("data: ")
        if text.startswith("{"):
            yield json.loads(text)


def told(path: str, stream: httpx.Response) -> Iterator[tuple[str, str]]:
    for event in events(stream):
        added = delta(path, event)
        if any(added):
            yield added


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.timeout(300)
def test_a_thought_ends_at_its_budget(thinker: Program, path: str) -> None:
    asks = {"model": "thinker", "stream": False} | ASKS[path] | BUDGETS[path]
    answer = httpx.post(f"{thinker.url}{path}", json=asks, timeout=200)
    assert answer.status_code == 200, answer.text
    assert "x-puna-ignored" not in answer.headers
    thought, text = parted(path, answer.json())
    assert thought.strip()
    assert text.strip()
    assert "</think>" not in thought + text
    counted = httpx.post(f"{thinker.url}/tokenize", json={"model": "thinker", "content": thought}).json()["tokens"]
    assert len(counted) <= BUDGET + 1, "a word may be cut into other tokens than the model wrote it in"
    with httpx.stream("POST", f"{thinker.url}{path}", json=asks | {"stream": True}, timeout=200) as stream:
        parts = list(told(path, stream))
    assert ("".join(part for part, _ in parts), "".join(part for _, part in parts)) == (thought, text)


@pytest.mark.parametrize("path", ["/api/generate", "/v1/responses"])
@pytest.mark.timeout(300)
def test_a_running_thought_is_ended(thinker: Program, path: str) -> None:
    long = {"options": GREEDY | {"num_predict": 400}} if "options" in ASKS[path] else {"max_output_tokens": 400}
    asks = {"model": "thinker"} | ASKS[path] | long | {"stream": True}
    with httpx.stream("POST", f"{thinker.url}{path}", json=asks, timeout=200) as stream:
        assert stream.status_code == 200, stream.read()
        parts = told(path, stream)
        first = next(parts)
        assert first[0], "it thinks"
        ended = httpx.post(f"{thinker.url}/v1/requests/{stream.headers['x-request-id']}/end_thinking", timeout=100)
        assert ended.status_code == 200, ended.text
        answer = next(text for _, text in parts if text)
    assert answer
