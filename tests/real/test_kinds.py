"""Tools as zod 4 writes them, on the default model with each engine: calls satisfy patterns, formats and lengths."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from .conftest import Program

MAIL = r"^(?!\.)(?!.*\.\.)([a-z0-9_.]*)[a-z0-9_]@([a-z0-9][a-z0-9-]*\.)+[a-z]{2,}$"
TIME = r"^20\d\d-.*T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:Z)$"
FIELDS: dict[str, dict[str, Any]] = {
    "mail": {"type": "string", "format": "email", "pattern": MAIL, "maxLength": 40},
    "at": {"type": "string", "format": "date-time", "pattern": TIME},
    "level": {"enum": ["low", "high", "none"], "pattern": "^(?!n)"},
    "scores": {
        "type": "object",
        "propertyNames": {"enum": ["speed", "taste"]},
        "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 9},
        "required": ["speed", "taste"],
    },
}
PARAMETERS = {"type": "object", "properties": FIELDS, "required": [*FIELDS], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "forms.survey/send", "parameters": PARAMETERS}}
NEVER = {"type": "function", "function": {"name": "never", "parameters": {"type": "array"}}}


@pytest.mark.timeout(600)
def test_a_call_keeps_all_that_its_schema_says(program: Program) -> None:
    body = {
        "model": "smollm2:135m",
        "messages": [{"role": "user", "content": "Send the survey of ada@example.org, who liked it."}],
        "tools": [TOOL, NEVER],
        "tool_choice": {"type": "function", "function": {"name": "forms.survey/send"}},
        "seed": 1,
    }
    answer = httpx.post(f"{program.url}/v1/chat/completions", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-puna-nonstandard"] == "tools[0].function.name"
    [call] = answer.json()["choices"][0]["message"]["tool_calls"]
    made = json.loads(call["function"]["arguments"])
    assert re.search(MAIL, made["mail"])
    assert len(made["mail"]) <= 40
    assert re.search(TIME, made["at"])
    assert made["level"] in {"low", "high"}
    assert made["scores"].keys() == {"speed", "taste"}
