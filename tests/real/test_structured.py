"""Assorted JSON Schemas on the default model: what ends by itself is valid, what cannot be held is named."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import jsonschema
import openai
import pytest
from jsonschema.validators import validator_for
from pydantic import BaseModel, Field

from fakes.schemas import ENFORCED, REFUSED

from .conftest import BYTES, RUNS, Program

OBJECTS = {name: schema for name, schema in ENFORCED.items() if isinstance(schema, dict)}
EACH = {"cpu": 1, "llama": 1} if RUNS >= 50 else {"cpu": 4, "llama": 8}
"""Every so many of them are asked of a model: llama.cpp's wheel takes six times as long as `cpu`. Grammars of all are
held against their schemas without a model, and read by both engines (test_schemas)."""
LONG = {"length-long": 500, "set-large": 500}
"""Answers that have to be long, or of which a small model finds no end: tokens at most. For the others 240."""
ENDED = 0.75
"""Such a share of the answers at least end by themselves: the others were cut, and say so."""


def output(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def ask(program: Program, schema: Any, **fields: Any) -> Any:
    ask: Any = [{"role": "user", "content": "Give me one short example in JSON."}]
    return program.client.chat.completions.create(
        messages=ask, response_format=output(schema), **{"model": "smollm2", "seed": 1} | fields
    )


def valid(text: str, schema: Any) -> None:
    kind = validator_for(schema, default=jsonschema.Draft202012Validator)
    kind(schema, format_checker=kind.FORMAT_CHECKER).validate(json.loads(text))


@pytest.mark.timeout(1800)
def test_what_ends_is_valid(program: Program) -> None:
    assert len(OBJECTS) >= 100
    schemas = dict([*OBJECTS.items()][:: EACH[program.environment["PUNA_ENGINE"]]])

    def run(item: tuple[str, Any]) -> str | None:
        """The name, when the answer ended. Every second one is streamed."""
        name, schema = item
        tokens = LONG.get(name, 240)
        if len(name) % 2:
            [choice] = ask(program, schema, max_tokens=tokens).choices
            text, reason = choice.message.content, choice.finish_reason
        else:
            parts = [chunk.choices[0] for chunk in ask(program, schema, max_tokens=tokens, stream=True)]
            text, reason = "".join(part.delta.content or "" for part in parts), parts[-1].finish_reason
        assert reason in {"stop", "length"}, name
        if reason == "length":
            return None
        valid(text, schema)
        return name

    with ThreadPoolExecutor(16) as pool:
        ended = set(pool.map(run, schemas.items())) - {None}
    print(f"{len(ended)} of {len(schemas)} ended; cut: {', '.join(sorted(schemas.keys() - ended))}")
    assert len(ended) >= ENDED * len(schemas)


@pytest.mark.timeout(600)
def test_what_cannot_be_held_is_named(program: Program) -> None:
    for name, (schema, reason) in REFUSED.items():
        if isinstance(schema, dict):
            with pytest.raises(openai.BadRequestError) as refused:
                ask(program, schema)
            assert refused.value.code == "invalid_json_schema", name
            assert reason in refused.value.message, name
            assert "#" in refused.value.message, "the place in the schema"
            assert refused.value.param == "response_format"


class Stop(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=12)]
    minutes: Annotated[int, Field(ge=0, le=59)]


class Trip(BaseModel):
    mood: Literal["good", "bad"]
    stops: Annotated[list[Stop], Field(min_length=1, max_length=2)]
    note: Annotated[str, Field(max_length=8)] | None


@pytest.mark.timeout(600)
def test_parse_gives_objects(program: Program) -> None:
    completions = program.client.chat.completions
    messages: Any = [{"role": "user", "content": "Plan a trip, in JSON."}]
    fields: Any = {"model": "smollm2", "messages": messages, "response_format": Trip, "seed": 2}
    whole = completions.parse(**fields, max_tokens=300).choices[0].message.parsed
    with completions.stream(**fields, max_tokens=300) as stream:
        streamed = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(whole, Trip)
    assert streamed == whole
    with pytest.raises(openai.LengthFinishReasonError):
        completions.parse(**fields, max_tokens=6)


def test_what_is_no_text_to_others_is_what_the_grammar_has_read(program: Program) -> None:
    """A model of bytes and chance writes much of it. To llama.cpp's grammars half a surrogate pair is one character,
    and a control token the characters of its name."""
    short = {"type": "string", "minLength": 3, "maxLength": 5}
    name = {"type": "string", "pattern": "^[<|a-z_>]{40,60}$"}
    schema = {
        "type": "object",
        "properties": {"a": short, "b": short, "c": {"type": "string", "pattern": "^[^x]{4}$"}, "d": name},
        "required": ["a", "b", "c", "d"],
        "additionalProperties": False,
    }
    answers = [ask(program, schema, model=BYTES, seed=number, max_tokens=300).choices[0] for number in range(8)]
    for answer in answers:
        assert answer.finish_reason == "stop"
        valid(answer.message.content, schema)
    if program.environment["PUNA_ENGINE"] == "llama":
        for odd in ("\N{REPLACEMENT CHARACTER}", "<|im_start|>"):
            assert any(odd in answer.message.content for answer in answers)


def test_what_ends_a_turn_is_text_in_a_form(program: Program) -> None:
    """The default model stores both as stop strings. Who sends one means it."""
    text = "a<|im_start|>b<|im_end|>c"
    schema = {"type": "object", "properties": {"v": {"const": text}}, "required": ["v"], "additionalProperties": False}
    [choice] = ask(program, schema, max_tokens=60).choices
    assert choice.finish_reason == "stop"
    assert json.loads(choice.message.content) == {"v": text}
    [cut] = ask(program, schema, max_tokens=60, stop="<|im_end|>").choices
    assert cut.message.content.endswith("<|im_start|>b")
