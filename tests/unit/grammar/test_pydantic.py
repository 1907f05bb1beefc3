"""Types of pydantic, by pydantic itself: served, and then it takes what is written; or refused by name."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from openai import pydantic_function_tool
from pydantic import PydanticUserError, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema

from fakes.gbnf_reader import Gbnf
from fakes.kinds import cell, documented, outcome
from fakes.pydantic_kinds import KINDS, MORE_THAN_IT_WRITES, kind
from puna.grammar.schema import conforms, schema_to_gbnf


def made(code: str) -> Any:
    try:
        return {"schema": TypeAdapter(kind(code)).json_schema()}
    except (PydanticInvalidForJsonSchema, PydanticUserError) as error:
        return {"refused": str(error)}


DOCUMENTED = documented("pydantic")
SERVED = [code for code in KINDS if DOCUMENTED[cell(code)].startswith("served")]
"""By the table in the docs, which is held against what is done below."""


def test_most_are_served() -> None:
    assert len(SERVED) > 85


@pytest.mark.parametrize("code", SERVED)
def test_pydantic_takes_what_is_written(code: str) -> None:
    adapter = TypeAdapter(kind(code))
    schema = adapter.json_schema()
    grammar, chance = Gbnf(schema_to_gbnf(schema)), random.Random(code)
    for _ in range(15):
        text = grammar.walk(chance, 60)
        assert conforms(text, schema) is None, text
        if code not in MORE_THAN_IT_WRITES:
            try:
                adapter.validate_json(text)
            except ValidationError as error:
                pytest.fail(f"{text}: {error}")


@pytest.mark.parametrize("code", SERVED)
def test_as_a_field_of_the_sdks_tool(code: str) -> None:
    tool = pydantic_function_tool(create_model("Arguments", value=(kind(code), ...)))
    assert outcome({"schema": json.loads(json.dumps(tool["function"]["parameters"]))}) == "served"


def test_the_table_in_the_docs_says_so() -> None:
    rows = {}
    for code in KINDS:
        found = outcome(made(code), by="pydantic")
        rows[cell(code)] = f"{found}; pydantic checks more than it writes" if code in MORE_THAN_IT_WRITES else found
    assert rows == DOCUMENTED
