"""Tools on a model whose template knows none: who must call does, who must not does not, arguments fit.

The default model where what it says matters, and once for calls to each tool; for what has to hold whatever a model
would write, one that writes any byte at all.

Arguments are bounded by their schemas, so that every call has the time to end: an answer cut in a call counts for none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from openai.types.chat import ChatCompletion

from fakes.node import Node

from .conftest import BYTES, RUNS, Program

ASKS = (
    "What is the weather in Paris?",
    "Meet Ana on 3 May 2027 for an hour.",
    "Switch the kitchen lamp on.",
    "Tell me a joke.",
    "Call nothing. Just say hello.",
    "It is dark in here.",
    "日本の天気は?",
    'Write {"a": 1} and <tool_call>.',
)


def function(name: str, description: str, properties: dict[str, Any], *required: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


PLACE = {"$ref": "#/$defs/place"}
TOOLS = [
    function(
        "get_weather",
        "The weather of a city.",
        {"city": {"type": "string", "minLength": 1, "maxLength": 16}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "city",
        "unit",
    ),
    function(
        "add_event",
        "Adds an event to the calendar.",
        {
            "date": {"type": "string", "format": "date"},
            "minutes": {"type": "integer", "minimum": 5, "maximum": 480},
            "guests": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 1, "maxItems": 2},
        },
        "date",
        "minutes",
    ),
    function(
        "set_light",
        "Sets lamps.",
        {
            "lamps": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"room": {"type": "string", "pattern": "^[a-z]{3,8}$"}, "on": {"type": "boolean"}},
                    "required": ["room", "on"],
                    "additionalProperties": False,
                },
                "minItems": 1,
                "maxItems": 2,
            },
            "level": {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]},
        },
        "lamps",
        "level",
    ),
]
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
NAMES = [*SCHEMAS]
OF_MODEL: dict[str, dict[str, Any]] = {
    "smollm2": {"max_tokens": 240},
    BYTES: {"max_tokens": 1000},
}
"""Room for an answer that has to end by itself."""


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def ask(program: Program, number: int, **fields: Any) -> ChatCompletion:
    fields = {"model": "smollm2", "tools": TOOLS, "seed": number} | fields
    fields = OF_MODEL[fields["model"]] | fields
    return program.client.chat.completions.create(
        messages=[{"role": "user", "content": ASKS[number % len(ASKS)]}], **fields
    )


def all_of(work: Callable[[int], Any], count: int, clients: int = 1) -> list[Any]:
    """One after another a place keeps the tools' long prompt: at once each place reads it anew."""
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(work, range(count)))


def called(answer: ChatCompletion) -> list[str]:
    """Names of the calls of a whole answer. Arguments must fit their schema; one that was cut is an error here."""
    choice = answer.choices[0]
    assert choice.finish_reason in {"tool_calls", "stop"}, choice
    assert "tool_call_parse_error" not in (choice.model_extra or {})
    for call in choice.message.tool_calls or []:
        fits(call.function.name, call.function.arguments)
    return [call.function.name for call in choice.message.tool_calls or []]


def fits(name: str, arguments: str) -> None:
    jsonschema.validate(
        json.loads(arguments), SCHEMAS[name], format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )


@pytest.mark.timeout(1200)
def test_a_named_tool_is_called_every_time(program: Program) -> None:
    names = [NAMES[number % 3] for number in range(RUNS)]
    answers = all_of(lambda number: ask(program, number, model=BYTES, tool_choice=named(names[number])), RUNS, 2)
    assert [called(answer) for answer in answers] == [[name] for name in names]
    assert {answer.choices[0].finish_reason for answer in answers} == {"stop"}, "as OpenAI ends a named call"
    assert {answer.choices[0].message.content for answer in answers} == {None}


@pytest.mark.timeout(1200)
def test_required_calls_every_time(program: Program) -> None:
    # A real model's own words, of which llama.cpp's wheel writes a sixth of what `cpu` does in the same time.
    runs = RUNS if RUNS >= 50 or program.environment["PUNA_ENGINE"] == "cpu" else RUNS // 2
    answers = all_of(lambda number: ask(program, number, tool_choice="required", parallel_tool_calls=False), runs)
    calls = [called(answer) for answer in answers]
    assert [len(made) for made in calls] == [1] * runs
    assert {name for [name] in calls} <= set(NAMES)
    assert {answer.choices[0].finish_reason for answer in answers} == {"tool_calls"}


@pytest.mark.timeout(1200)
def test_an_allowed_tool_is_called_every_time(program: Program) -> None:
    """A third of the arguments, by the other ways to ask: `allowed_tools`, the deprecated fields, streams."""

    def run(number: int) -> None:
        name = NAMES[number % 3]
        match number % 4:
            case 0:
                allowed = {"mode": "required", "tools": [named(name)]}
                choice = {"type": "allowed_tools", "allowed_tools": allowed}
                answer = ask(program, number, model=BYTES, tool_choice=choice, parallel_tool_calls=False)
                assert called(answer) == [name]
            case 1:
                functions = [tool["function"] for tool in TOOLS]
                fields = {"model": BYTES, "tools": None, "functions": functions}
                answer = ask(program, number, **fields, function_call={"name": name})
                made = answer.choices[0].message.function_call
                assert made is not None
                assert (made.name, answer.choices[0].finish_reason) == (name, "function_call")
                fits(made.name, made.arguments)
            case _:
                assert streamed(program, number, model=BYTES, tool_choice=named(name)) == [name]

    all_of(run, RUNS)


def streamed(program: Program, number: int, **fields: Any) -> list[str]:
    """Names of the calls of a stream, whose form is checked: a header once a call, then fragments of its arguments."""
    made: list[tuple[str, list[str]]] = []
    reasons = []
    for chunk in ask(program, number, stream=True, **fields):
        [choice] = chunk.choices
        reasons.append(choice.finish_reason)
        for part in choice.delta.tool_calls or []:
            said = part.function.model_dump(exclude_unset=True)
            if part.id is not None:
                assert (part.index, part.type, said["arguments"]) == (len(made), "function", "")
                made.append((said["name"], []))
            else:
                assert part.index == len(made) - 1
                assert said.keys() == {"arguments"}
                made[-1][1].append(said["arguments"])
    assert reasons[-1] in {"stop", "tool_calls"}
    assert set(reasons[:-1]) == {None}
    for name, fragments in made:
        assert len(fragments) > 1, "arguments come as they are written"
        fits(name, "".join(fragments))
    return [name for name, _ in made]


@pytest.mark.timeout(600)
def test_none_never_calls(program: Program) -> None:
    answers = all_of(lambda number: ask(program, number, model=BYTES, tool_choice="none", max_tokens=16), RUNS)
    assert [answer.choices[0].message.tool_calls for answer in answers] == [None] * RUNS
    assert all(answer.choices[0].message.content for answer in answers)


@pytest.mark.timeout(600)
def test_calls_side_by_side_or_one(program: Program) -> None:
    """Told that it may call again, it does; at the latest when nothing else is left, every second time."""

    def run(number: int) -> int:
        fields = {"model": BYTES, "tool_choice": "required", "parallel_tool_calls": True}
        fields["extra_body"] = {"ignore_eos": bool(number % 2)}
        answer = ask(program, number, **fields, max_tokens=400)
        choice = answer.choices[0]
        calls = choice.message.tool_calls or []
        cut = choice.finish_reason == "length"
        assert cut or choice.finish_reason == "tool_calls"
        for call in calls[: len(calls) - cut]:
            fits(call.function.name, call.function.arguments)
        assert len({call.id for call in calls}) == len(calls)
        return len(calls)

    assert max(all_of(run, 4)) > 1


def test_a_call_that_is_cut_is_told(program: Program) -> None:
    """Never as if it were whole: not in the reason, nor in the arguments."""
    choice = ask(program, 0, model=BYTES, tool_choice=named("set_light"), max_tokens=24).choices[0]
    assert choice.finish_reason == "length"
    assert (choice.model_extra or {})["tool_call_parse_error"]
    for call in choice.message.tool_calls or []:
        with pytest.raises(ValueError):
            json.loads(call.function.arguments)


@pytest.mark.timeout(600)
def test_tools_beside_a_response_format_allow_either(program: Program) -> None:
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}, "why": {"type": "string", "maxLength": 12}},
        "required": ["mood", "why"],
        "additionalProperties": False,
    }
    output = {"type": "json_schema", "json_schema": {"name": "mood", "strict": True, "schema": schema}}

    def run(choice: str | None, number: int) -> str:
        fields = {} if choice is None else {"tool_choice": choice}
        answer = ask(program, number, model=BYTES, response_format=output, parallel_tool_calls=False, **fields)
        if called(answer):
            assert answer.choices[0].message.content is None
            return "call"
        jsonschema.validate(json.loads(answer.choices[0].message.content or ""), schema)
        return "answer"

    assert set(all_of(lambda number: run(None, number), 4)) <= {"call", "answer"}
    assert run("none", 0) == "answer"
    assert run("required", 1) == "call"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("syntax", "definition", "form"),
    [
        ("regex", "[a-z]{3}-[0-9]{2}", "[a-z]{3}-[0-9]{2}"),
        ("lark", 'start: "\\"" NAME "\\"" ("," NAME)?\nNAME: /[a-z]{1,4}/', '"[a-z]{1,4}"(,[a-z]{1,4})?'),
    ],
)
def test_a_custom_tool_is_written_by_its_grammar(program: Program, syntax: str, definition: str, form: str) -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": syntax, "definition": definition}}
    tools = [{"type": "custom", "custom": {"name": "code", "format": grammar}}, *TOOLS]
    choice = {"type": "custom", "custom": {"name": "code"}}
    for number in range(2):
        [made] = ask(program, number, model=BYTES, tools=tools, tool_choice=choice).choices[0].message.tool_calls or []
        assert (made.type, made.custom.name) == ("custom", "code")
        assert re.fullmatch(form, made.custom.input)


@pytest.mark.timeout(600)
def test_a_tool_loop(program: Program) -> None:
    """A call, its result, and an answer to it, with OpenAI's own accumulation of a stream."""
    messages: list[Any] = [{"role": "user", "content": ASKS[0]}]
    with program.client.chat.completions.stream(
        model="smollm2", messages=messages, tools=TOOLS, tool_choice=named("get_weather"), max_tokens=240, seed=1
    ) as stream:
        made = stream.get_final_completion().choices[0].message
    assert made.tool_calls is not None
    [call] = made.tool_calls
    fits(call.function.name, call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": "17 degrees, sunny"}
    past = {"role": "assistant", "tool_calls": [call.model_dump(include={"id", "type", "function"})]}
    before = counted(program, messages)
    messages += [past, result]
    answer = program.client.chat.completions.create(
        model="smollm2", messages=messages, tools=TOOLS, tool_choice="none", max_tokens=24, seed=1
    )
    assert answer.choices[0].message.content
    assert answer.usage.prompt_tokens > before + 20, "the model reads the call and its result"


def counted(program: Program, messages: Sequence[Any]) -> int:
    answer = program.client.post(
        f"{program.url}/tokenize", body={"model": "smollm2", "messages": messages}, cast_to=object
    )
    assert isinstance(answer, dict)
    return int(answer["count"])


@pytest.mark.timeout(600)
def test_node_calls_tools(program: Program, node: Node) -> None:
    seen = node.run("real.mjs", program.url, "smollm2", "tools")
    [city] = seen["asked"]
    assert 0 < len(city) <= 16
    assert [call["name"] for call in seen["calls"]] == ["set_light"]
    assert set(json.loads(seen["calls"][0]["arguments"])) == {"on"}
    assert seen["reason"] == "tool_calls"
