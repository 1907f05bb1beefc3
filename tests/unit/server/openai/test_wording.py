from __future__ import annotations

import pytest

from puna.errors import InvalidRequest, Unsupported
from puna.server.contract.faults import path_of
from puna.server.contract.reading import check
from puna.server.openai.bodies import ChatCompletionBody, CompletionBody
from puna.server.openai.wording import WORDING

CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def fault(**fields: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check(ChatCompletionBody, {**CHAT, **fields}, WORDING, strict=False)  # type: ignore[dict-item]
    return caught.value


def test_paths_leave_out_the_names_of_choices():
    data = {"messages": [{"role": "user", "content": [{"type": "text"}]}]}
    location = ("messages", 0, "user", "content", "array", 0, "text", "text")
    assert path_of(location, data, missing=True) == "messages[0].content[0].text"
    assert path_of((), data) == ""
    assert path_of(("messages", 5), data) == "messages"


@pytest.mark.parametrize(
    ("location", "missing", "path"),
    [
        ((0, "text", "cache_control", "ephemeral", "ttl"), False, "[0].cache_control.ttl"),
        ((0, "text", "cache_control"), False, "[0].cache_control"),
        ((0, "text", "text"), False, "[0].text"),
        ((0, "text"), False, "[0].text"),
        ((0, "text", "text", "string"), False, "[0].text"),
        ((1, "thinking", "signature"), True, "[1].signature"),
        ((1, "thinking", "thinking"), False, "[1].thinking"),
        ((2, "a", "b"), True, "[2].b"),
    ],
)
def test_a_key_may_have_the_name_of_its_choice(location: tuple[int | str, ...], missing: bool, path: str):
    text = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "3h"}}
    assert path_of(location, [text, {"type": "thinking", "thinking": "x"}, "a"], missing=missing) == path


@pytest.mark.parametrize(
    ("fields", "param", "code", "message"),
    [
        ({"temperature": "x"}, "temperature", "invalid_type",
         "Invalid type for 'temperature': expected a decimal, but got a string instead."),
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value",
         "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 2.5 instead."),
        ({"n": 0}, "n", "integer_below_min_value",
         "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead."),
        ({"n": 10**200}, "n", "integer_above_max_value",
         "Invalid 'n': integer above maximum value. Expected a value <= 128, but got a number of 201 digits instead."),
        ({"n": True}, "n", "invalid_type", "Invalid type for 'n': expected an integer, but got a boolean instead."),
        ({"model": None}, "model", "missing_required_parameter", "Missing required parameter: 'model'."),
        ({"messages": []}, "messages", "empty_array",
         "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter",
         "Missing required parameter: 'messages[0].role'."),
        ({"messages": [{"role": "robot"}]}, "messages[0].role", "invalid_value",
         "Invalid value: 'robot'. Supported values are: 'system', 'developer', 'user', 'assistant', 'tool', "
         "and 'function'."),
        ({"messages": [{"role": 5}]}, "messages[0].role", "invalid_type", None),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type",
         "Invalid type for 'messages[0].content': expected a string or an array of parts, but got an integer instead."),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content[0].text",
         "invalid_type", None),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length", None),
        ({"stop": ""}, "stop", "string_below_min_length", None),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata", "object_above_max_properties", None),
        ({"metadata": {"a": "x" * 513}}, "metadata.a", "string_above_max_length", None),
        ({"metadata": {"x" * 65: ""}}, None, "string_above_max_length", None),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "decimal_above_max_value", None),
        ({"reasoning_effort": "much"}, "reasoning_effort", "invalid_value", None),
        ({"reasoning_effort": 1}, "reasoning_effort", "invalid_type", None),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name",
         "invalid_value", None),
        ({"keep_alive": True}, "keep_alive", "invalid_type", None),
        ({"guided_json": 5}, "guided_json", "invalid_type", None),
    ],
)  # fmt: skip
def test_faults_in_openais_words(fields, param, code, message):
    error = fault(**fields)
    assert error.code == code
    if param is not None:
        assert error.param == param
    if message is not None:
        assert error.message == message


def test_a_mixed_prompt_is_refused_where_it_changes():
    with pytest.raises(InvalidRequest) as caught:
        check(CompletionBody, {"model": "m", "prompt": ["a", 1]}, WORDING, strict=False)
    assert caught.value.param == "prompt[1]"


def test_refused_fields_accept_what_asks_for_nothing():
    assert check(ChatCompletionBody, {**CHAT, "modalities": ["text"]}, WORDING, strict=False)[1] == []
    with pytest.raises(Unsupported):
        check(ChatCompletionBody, {**CHAT, "modalities": ["audio"]}, WORDING, strict=False)


def test_what_has_no_effect_is_found_on_every_level():
    data = {
        **CHAT,
        "user": "me",
        "store": False,
        "new": 1,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x", "a": 1}], "b": 2}],
    }
    body, ignored = check(ChatCompletionBody, data, WORDING, strict=False)
    assert ignored == ["user", "new", "messages[0].b", "messages[0].content[0].a"]
    assert body.model == "m"
    with pytest.raises(InvalidRequest) as caught:
        check(ChatCompletionBody, data, WORDING, strict=True)
    assert (caught.value.code, caught.value.param) == ("unknown_parameter", "new")


def test_nulls_inside_a_schema_are_kept():
    schema = {"enum": [None, 1], "default": None}
    body, _ = check(ChatCompletionBody, {**CHAT, "json_schema": schema}, WORDING, strict=False)
    assert body.json_schema == schema
