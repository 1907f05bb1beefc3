"""What shapes an answer: response formats, grammars, schemas. Their contract, and what they become. Pure."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from puna.errors import InvalidRequest
from puna.grammar.gbnf import quoted
from puna.server.body import json_object
from puna.server.contract.shapes import Honoured, JsonObject, Reported, Shape
from puna.server.openai.strict import check_strict
from puna.server.openai.tools import StandardName
from puna.types import Grammar, JsonOutput, Output


class TextFormat(Shape):
    type: Literal["text"]


class JsonObjectFormat(Shape):
    type: Literal["json_object"]
    schema_: Annotated[
        JsonObject | None, Field(alias="schema"), Honoured("Not OpenAI's: a schema that the object satisfies.")
    ] = None


class SchemaSpec(Shape):
    name: Annotated[StandardName, Honoured("A name for it.")]
    description: Annotated[str | None, Reported("The schema is enforced; it is not described to the model.")] = None
    schema_: Annotated[JsonObject | None, Field(alias="schema"), Honoured("The schema; absent: any object.")] = None
    strict: Annotated[
        bool | None, Honoured("The schema must keep OpenAI's strict rules. It is enforced in any case.")
    ] = None


class JsonSchemaFormat(Shape):
    type: Literal["json_schema"]
    json_schema: Annotated[SchemaSpec, Honoured("The schema that the answer satisfies.")]


ResponseFormat: TypeAlias = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(Shape):
    """vLLM's way to shape an answer: one of these."""

    json_: Annotated[JsonObject | str | None, Field(alias="json"), Honoured("A JSON Schema, or its text.")] = None
    regex: Annotated[str | None, Honoured("A regular expression.")] = None
    choice: Annotated[list[str] | None, Field(min_length=1), Honoured("The answer is one of these.")] = None
    grammar: Annotated[str | None, Honoured("A grammar in llama.cpp's GBNF.")] = None
    json_object: Annotated[bool | None, Honoured("Any JSON object.")] = None


class Shaped(Shape):
    """Fields of a request whose answer may be shaped: one of them at a time."""

    grammar: Annotated[str | None, Honoured("The answer matches this grammar (llama.cpp's GBNF).")] = None
    json_schema: Annotated[JsonObject | None, Honoured("The answer is JSON that satisfies this schema.")] = None
    guided_json: Annotated[
        JsonObject | str | None, Honoured("The same, under vLLM's old name; an object or its text.")
    ] = None
    guided_regex: Annotated[str | None, Honoured("The answer matches this regular expression.")] = None
    guided_choice: Annotated[list[str] | None, Field(min_length=1), Honoured("The answer is one of these.")] = None
    guided_grammar: Annotated[str | None, Honoured("Another name of `grammar`.")] = None
    structured_outputs: Annotated[StructuredOutputs | None, Honoured("vLLM's new name for the same.")] = None


class Formatted(Shaped):
    """The same, with OpenAI's own."""

    response_format: Annotated[
        ResponseFormat | None, Honoured("text, json_object or json_schema, enforced while generating.")
    ] = None


# ------------------------------------------------------------------------------------------------ what they become


def to_output(body: Shaped) -> tuple[Output | None, dict[str, str]]:
    """What shapes the answer, and what this request calls it."""
    wishes = _wishes(body)
    if len(wishes) > 1:
        names = [*wishes]
        shown = ", ".join(f"'{name}'" for name in names)
        raise InvalidRequest(f"Only one of {shown} can shape the answer.", param=names[-1])
    name, output = next(iter(wishes.items()), ("response_format", None))
    # An engine that refuses what it was given calls it a grammar, whatever it was made from.
    return output, {"output": name, "grammar": name}


_Wishes = dict[str, Output]
"""Ways to shape the answer that a request asks for, by the field that asks."""


def _wishes(body: Shaped) -> _Wishes:
    wishes: _Wishes = {}
    if isinstance(body, Formatted):
        _add_format(wishes, body.response_format)
    if body.grammar is not None:
        wishes["grammar"] = Grammar("gbnf", body.grammar)
    if body.guided_grammar is not None:
        wishes["guided_grammar"] = Grammar("gbnf", body.guided_grammar)
    if body.guided_regex is not None:
        wishes["guided_regex"] = Grammar("regex", body.guided_regex)
    if body.guided_choice is not None:
        wishes["guided_choice"] = choice_grammar(body.guided_choice)
    if body.json_schema is not None:
        wishes["json_schema"] = JsonOutput(body.json_schema)
    if body.guided_json is not None:
        wishes["guided_json"] = JsonOutput(_schema_of(body.guided_json, "guided_json"))
    if body.structured_outputs is not None:
        _add_structured(wishes, body.structured_outputs)
    return wishes


def _add_format(wishes: _Wishes, response_format: ResponseFormat | None) -> None:
    match response_format:
        case JsonObjectFormat(schema_=schema):
            wishes["response_format"] = JsonOutput(schema)
        case JsonSchemaFormat(json_schema=spec):
            if spec.strict and spec.schema_ is not None:
                check_strict(
                    spec.schema_, what=f"response_format '{spec.name}'", param="response_format.json_schema.schema"
                )
            wishes["response_format"] = JsonOutput(spec.schema_)


def _add_structured(wishes: _Wishes, structured: StructuredOutputs) -> None:
    name = "structured_outputs"
    if structured.json_ is not None:
        wishes[f"{name}.json"] = JsonOutput(_schema_of(structured.json_, f"{name}.json"))
    if structured.regex is not None:
        wishes[f"{name}.regex"] = Grammar("regex", structured.regex)
    if structured.choice is not None:
        wishes[f"{name}.choice"] = choice_grammar(structured.choice)
    if structured.grammar is not None:
        wishes[f"{name}.grammar"] = Grammar("gbnf", structured.grammar)
    if structured.json_object:
        wishes[f"{name}.json_object"] = JsonOutput()


def _schema_of(schema: JsonObject | str, param: str) -> JsonObject:
    return schema if isinstance(schema, dict) else json_object(schema, param, "a JSON Schema")


def choice_grammar(choices: list[str]) -> Grammar:
    """GBNF for one of `choices`, written as they are."""
    return Grammar("gbnf", "root ::= " + " | ".join(quoted(choice) for choice in choices))
