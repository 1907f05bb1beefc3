"""Whatever was sent as an assistant's message is taken back: in both dialects, whole and streamed, cut anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.conftest import THINK_TEMPLATE, TOOL_TEMPLATE, Server, TinyModel, add_model, run_server
from fakes.node import Node
from puna.settings import Settings
from puna.store.library import Library

WALKS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function.name }}"
    "{% for key, value in call.function.arguments | items %}<{{ key }}>{{ value }}</{{ key }}>{% endfor %}</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{# tools #}{% if tools %}{{ tools | tojson }}{% endif %}"
)
"""A template that needs an object of arguments."""

NINE = (
    "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% for message in messages %}{% if message.role == 'user' %}[INST]{{ message.content }}[/INST]"
    "{% elif message.tool_calls is defined %}[TOOL_CALLS][{% for call in message.tool_calls %}"
    "{% if call.id | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}, "id": "{{ call.id }}"}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]</s>"
    "{% elif message.role == 'tool' %}"
    "{% if message.tool_call_id is not defined or message.tool_call_id | length != 9 %}"
    "{{ raise_exception('ids have nine letters') }}{% endif %}"
    '[TOOL_RESULTS]{"content": {{ message.content | tojson }}, "call_id": "{{ message.tool_call_id }}"}[/TOOL_RESULTS]'
    "{% else %}{{ message.content }}</s>{% endif %}{% endfor %}"
)
"""A template that takes no ids but its own."""

STRICT = (
    "{% set turn = namespace(user=true) %}{% for message in messages %}"
    "{% if message.role in ['user', 'assistant'] %}{% if (message.role == 'user') != turn.user %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% set turn.user = not turn.user %}{% endif %}"
    "{% if message.role == 'tool' %}{% set turn.user = false %}{% endif %}"
    "{% if message.tool_calls is defined %}{% if message.tool_calls | length != 1 %}"
    "{{ raise_exception('one call at once') }}{% endif %}<tool_call>\n"
    '{"name": "{{ message.tool_calls[0].function.name }}", "arguments": '
    "{{ message.tool_calls[0].function.arguments | tojson }}}\n</tool_call>{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
)
"""A template of one call a turn, and of turns in order."""

GO = (
    "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}{{ range .ToolCalls }}<tool_call>\n"
    '{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}\n</tool_call>{{ end }}<|im_end|>\n'
    "{{ end }}<|im_start|>assistant\n{{ if .Tools }}{{ .Tools }}{{ end }}"
)

MODELS = ("plain", "tools", "thinker", "walks", "nine", "strict", "go")

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": [1, 2]}}\n</tool_call>'
ANSWERS = (
    "",
    " ",
    "Hello <b>there</b>.",
    "<think>\nLet me see.\n</think>\n\nForty-two.",
    "<think>\nOnly a thought",
    CALL,
    f"I look.\n{CALL}\n{CALL}",
    f"<think>\nHm.\n</think>\n\n{CALL}",
    '<tool_call>\n{"name": "get_weather", "arguments": {}}\n</tool_call>',
    '<tool_call>\n{"name": "get_weather", "arguments": {\'city\': 1,}}\n</tool_call> and so on',
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "\\ud800", "n": 1e999}}\n</tool_call>',
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "n": 1e999}}\n</tool_call>',
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "\\ud800 and \\ude00\\ud83d"}}\n</tool_call>',
    '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
    '<tool_call>\n{"name": "odd.name/2", "arguments": {"a": "<tool_call>"}}\n</tool_call>',
    '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Rome"}, "id": "abcdefghi"}]',
)
SCRIPT = {
    "rules": [
        {"when": {"contains": "TAKEN BACK"}, "answer": {"echo": "prompt"}},
        *({"when": {"contains": f"ANSWER {place};"}, "answer": {"text": text}} for place, text in enumerate(ANSWERS)),
    ]
}
FUNCTIONS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("get_weather", "odd.name/2")
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("history")
    models = directory / "models"
    library = Library.open(models)
    templates = {"tools": TOOL_TEMPLATE, "thinker": THINK_TEMPLATE, "walks": WALKS, "nine": NINE, "strict": STRICT}
    add_model(library, directory, TinyModel("plain"))
    for name, template in templates.items():
        add_model(library, directory, TinyModel(name, template))
    with run_server(replace(settings, models=models), SCRIPT) as running:
        created = running.post("/api/create", {"model": "go", "from": "plain", "template": GO, "stream": False})
        assert created.status == 200, created.body
        yield running


@pytest.fixture(scope="module")
def sdk(house: Server) -> Iterator[Sdk]:
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key="any", max_retries=0) as client:
        yield Sdk(client)


@pytest.fixture(scope="module")
def native(house: Server) -> Iterator[ollama.Client]:
    with ollama.Client(house.url) as client:
        yield client


def spoken(place: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"ANSWER {place};"}]


class Sdk:
    """OpenAI's client: one answer in every form in which its users hold one."""

    forms = ("object", "dump", "set", "stream", "deltas")

    def __init__(self, client: openai.OpenAI) -> None:
        self.client = client

    def message(self, form: str, place: int, **asked: Any) -> Any:
        completions = self.client.chat.completions
        if form == "stream":
            try:
                with completions.stream(messages=spoken(place), **asked) as stream:  # type: ignore[arg-type]
                    whole = stream.get_final_completion()
            except openai.LengthFinishReasonError as error:
                whole = error.completion  # type: ignore[assignment]
            return whole.choices[0].message.model_dump()
        if form == "deltas":
            return self.joined(completions.create(messages=spoken(place), stream=True, **asked))  # type: ignore[call-overload]
        message = completions.create(messages=spoken(place), **asked).choices[0].message  # type: ignore[call-overload]
        return {"object": message, "dump": message.model_dump(), "set": message.to_dict()}[form]

    def joined(self, stream: Any) -> dict[str, Any]:
        """As people join deltas by hand: what is empty is left out."""
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        calls: dict[int, dict[str, Any]] = {}
        for chunk in stream:
            delta = chunk.choices[0].delta
            message["content"] += delta.content or ""
            if getattr(delta, "reasoning_content", None):
                message["reasoning_content"] = message.get("reasoning_content", "") + delta.reasoning_content
            for part in delta.tool_calls or []:
                call = calls.setdefault(part.index, part.model_dump())
                if call["id"] != part.id:
                    call["function"]["arguments"] += part.function.arguments
        if calls:
            message["tool_calls"] = list(calls.values())
        if not message["content"] and len(message) > 2:
            message["content"] = None
        return message

    def again(self, messages: list[Any], **asked: Any) -> str:
        answer = self.client.chat.completions.with_raw_response.create(messages=messages, **asked)  # type: ignore[call-overload]
        assert answer.status_code == 200
        return answer.text


def calls_of(message: Any) -> list[Any]:
    held = message if isinstance(message, dict) else message.model_dump()
    return held.get("tool_calls") or []


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_openai_answers_are_taken_back(sdk: Sdk, data: st.DataObject) -> None:
    asked: dict[str, Any] = {"model": data.draw(st.sampled_from(MODELS)), "tools": FUNCTIONS}
    if not data.draw(st.booleans()):
        del asked["tools"]
    cut = data.draw(st.one_of(st.none(), st.integers(1, 45)))
    place = data.draw(st.integers(0, len(ANSWERS) - 1))
    form = data.draw(st.sampled_from(Sdk.forms))
    message = sdk.message(form, place, **asked, **({} if cut is None else {"max_tokens": cut}))
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "sunny"} for call in calls_of(message)]
    if data.draw(st.booleans()):
        results.append({"role": "user", "content": "Go on."})
    ending = results or [{"role": "user", "content": "Go on."}]
    ending[-1]["content"] = "TAKEN BACK"
    sdk.again([*spoken(place), message, *ending], **asked)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_ollama_answers_are_taken_back(native: ollama.Client, data: st.DataObject) -> None:
    asked: dict[str, Any] = {"model": data.draw(st.sampled_from(MODELS)), "tools": FUNCTIONS}
    if not data.draw(st.booleans()):
        del asked["tools"]
    cut = data.draw(st.one_of(st.none(), st.integers(1, 45)))
    place = data.draw(st.integers(0, len(ANSWERS) - 1))
    options = {} if cut is None else {"num_predict": cut}
    if data.draw(st.booleans()):
        message: Any = ollama.Message(role="assistant", content="", thinking="", tool_calls=[])
        for piece in native.chat(messages=spoken(place), options=options, stream=True, **asked):
            message.content += piece.message.content or ""
            message.thinking += piece.message.thinking or ""
            message.tool_calls += piece.message.tool_calls or []
    else:
        message = native.chat(messages=spoken(place), options=options, **asked).message
    calls = message.tool_calls or []
    if data.draw(st.booleans()):
        message = message.model_dump()
    results = [{"role": "tool", "tool_name": call.function.name, "content": "sunny"} for call in calls]
    if data.draw(st.booleans()):
        results.append({"role": "user", "content": "Go on."})
    ending = results or [{"role": "user", "content": "Go on."}]
    ending[-1]["content"] = "TAKEN BACK"
    answer = native.chat(messages=[*spoken(place), message, *ending], **asked)
    assert "TAKEN BACK" in str(answer.message)


def test_the_javascript_clients_answers_are_taken_back(house: Server, node: Node) -> None:
    asked = {"models": ["tools", "nine"], "tools": FUNCTIONS, "answers": len(ANSWERS), "cuts": [None, 20, 60]}
    assert node.run("history.mjs", house.url, json.dumps(asked)) == []


CUT = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Par'}},
        {"id": "b", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}},
    ],
}


@pytest.mark.parametrize("model", MODELS)
def test_a_call_that_was_cut_is_told_as_it_was_written(house: Server, model: str) -> None:
    results = [{"role": "tool", "tool_call_id": id_, "content": f"result {id_}"} for id_ in "ab"]
    messages = [{"role": "user", "content": "x"}, CUT, *results, {"role": "user", "content": "TAKEN BACK"}]
    answer = house.post("/v1/chat/completions", {"model": model, "messages": messages})
    assert answer.status == 200, answer.body
    assert answer.headers["x-puna-ignored"] == "messages[1].tool_calls[0].function.arguments"
    prompt = answer.json["choices"][0]["message"]["content"]
    assert '{"city": "Par' in prompt or '{\\"city\\": \\"Par' in prompt
    assert prompt.index("result a") < prompt.index("result b")
    assert "Oslo" in prompt


def test_the_older_form_too(house: Server) -> None:
    made = {"role": "assistant", "function_call": {"name": "f", "arguments": "[1"}}
    messages = [{"role": "user", "content": "TAKEN BACK"}, made, {"role": "function", "name": "f", "content": "r"}]
    answer = house.post("/v1/chat/completions", {"model": "tools", "messages": messages})
    assert answer.status == 200
    assert answer.headers["x-puna-ignored"] == "messages[1].function_call.arguments"


@pytest.mark.parametrize("stream", [False, True])
def test_a_native_call_that_was_cut_is_text(house: Server, stream: bool) -> None:
    place = ANSWERS.index(f"I look.\n{CALL}\n{CALL}")
    body = {"model": "tools", "messages": spoken(place), "tools": FUNCTIONS, "stream": stream}
    body["options"] = {"num_predict": 75}
    answer = house.post("/api/chat", body)
    lines = [json.loads(line) for line in answer.body.splitlines()]
    calls = [call for line in lines for call in line["message"].get("tool_calls", [])]
    assert [call["function"]["arguments"] for call in calls] == [{"city": "Paris", "days": [1, 2]}]
    text = "".join(line["message"]["content"] for line in lines)
    assert text.startswith("I look.")
    cut = text.removeprefix("I look.").strip()
    assert CALL.startswith(cut)
    assert "arguments" in cut
    assert (lines[-1]["done_reason"], lines[-1]["tool_call_parse_error"]) == (
        "length", "the arguments of get_weather ended too early",
    )  # fmt: skip


def test_a_native_call_that_cannot_be_read_is_text(house: Server) -> None:
    place = next(place for place, text in enumerate(ANSWERS) if "'city'" in text)
    body = {"model": "tools", "messages": spoken(place), "tools": FUNCTIONS, "stream": False}
    answer = house.post("/api/chat", body).json
    assert "tool_calls" not in answer["message"]
    assert "{'city': 1,}" in answer["message"]["content"]
    assert answer["tool_call_parse_error"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("place", range(len(ANSWERS)))
def test_every_answer_can_be_written_for_anthropics_clients_too(house: Server, place: int, stream: bool) -> None:
    tools = [{"name": one["function"]["name"], "input_schema": {"type": "object"}} for one in FUNCTIONS]
    body = {"model": "tools", "max_tokens": 500, "messages": spoken(place), "tools": tools, "stream": stream}
    answer = house.post("/v1/messages", body)
    assert answer.status == 200
    assert b"event: error" not in answer.body
