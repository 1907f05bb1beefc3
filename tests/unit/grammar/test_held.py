"""What is read, what is written and what is checked last are one: over generated schemas, right and wrong."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings

from fakes.field_schemas import schemas
from fakes.gbnf_reader import Gbnf
from puna.errors import InvalidRequest
from puna.grammar.gbnf import GrammarTooLarge, Rules
from puna.grammar.schema import conforms, loose_json_value, schema_to_gbnf
from puna.grammar.validation import validator

MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def check_texts(gbnf: str, schema: Any) -> None:
    """Texts of the grammar stand the last check, which looks at all of the schema and never throws."""
    grammar = Gbnf(gbnf)
    chance = random.Random(gbnf)
    for _ in range(4):
        text = grammar.walk(chance, 40)
        note(text)
        assert [error.message for error in validator(schema).iter_errors(json.loads(text))] == []


@MANY
@given(schemas())
def test_what_is_loosened_when_it_is_read_is_loosened_when_it_is_checked(schema: Any) -> None:
    rules = Rules()
    try:
        held = loose_json_value(rules, schema, param="p")
    except (InvalidRequest, GrammarTooLarge):
        return
    note(held.schema)
    check_texts(rules.text(held.value), held.schema)


@MANY
@given(schemas(wrong=False))
def test_what_is_not_refused_is_checked_as_it_is_written(schema: Any) -> None:
    try:
        gbnf = schema_to_gbnf(schema)
    except InvalidRequest:
        return
    check_texts(gbnf, schema)


@pytest.mark.parametrize("text", ['{"a":[1,2.5,{"b":null}]}', '"foo"', "3", "[]", "null", "1e308", "[[[[[]]]]]"])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=schemas())
def test_the_last_check_never_throws(text: str, schema: Any) -> None:
    try:
        held = loose_json_value(Rules(), schema, param="p")
    except (InvalidRequest, GrammarTooLarge):
        return
    conforms(text, held.schema)
