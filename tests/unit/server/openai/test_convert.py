from __future__ import annotations

from typing import Any

import pytest

from puna.errors import InvalidRequest
from puna.server.contract.reading import check
from puna.server.openai.bodies import ChatCompletionBody, CompletionBody
from puna.server.openai.convert import to_chat, to_completion
from puna.server.openai.output import choice_grammar
from puna.server.openai.wording import WORDING
from puna.types import (
    ChatRequest,
    Grammar,
    ImagePart,
    JsonOutput,
    Message,
    Options,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)

FUNCTION = {"name": "f", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}


def body(**fields: Any) -> ChatCompletionBody:
    data = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    return check(ChatCompletionBody, data, WORDING, strict=False)[0]


def chat(**fields: Any) -> ChatRequest:
    return to_chat(body(**fields), {}).request


def called(field: str, **fields: Any) -> str:
    """What the request calls a field of the house."""
    return to_chat(body(**fields), {}).names.of(field)


def refused(**fields: Any) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    return caught.value.param


def test_the_least_request():
    assert chat() == ChatRequest(model="m", messages=(Message.of("user", "x"),))


def test_options_are_said_only_where_the_request_says():
    assert chat().options == Options()
    options = chat(temperature=0, stop="a", logit_bias={"7": 1}, options={"temperature": 1, "top_k": 5}).options
    assert options == Options(temperature=0.0, stop=("a",), logit_bias=((7, 1.0),), top_k=5)


def test_every_number_is_a_seed():
    assert chat(seed=5).options.seed == 5
    assert chat(seed=-1).options.seed not in {-1, None}
    assert chat(seed=-(2**63)).options.seed == -(2**63)


def test_two_names_of_one_setting():
    assert chat(max_tokens=5).options.num_predict == 5
    assert chat(max_completion_tokens=6, max_tokens=6).options.num_predict == 6
    assert refused(max_completion_tokens=6, max_tokens=5) == "max_tokens"
    assert chat(repetition_penalty=1.5).options.repeat_penalty == 1.5
    assert refused(repetition_penalty=1.5, repeat_penalty=1.25) == "repetition_penalty"


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "xhigh"}, "max"),
        ({"reasoning": {"effort": "low"}}, "low"),
        ({"think": True}, True),
        ({"think": False, "reasoning_effort": "none"}, False),
        ({"think": "high", "reasoning_effort": "high"}, "high"),
    ],
)
def test_think(fields, think):
    assert chat(**fields).think == think


def test_think_under_two_names_must_agree_and_is_named_as_it_was_sent():
    assert refused(think=True, reasoning_effort="none") == "think"
    assert called("think", reasoning_effort="low") == "reasoning_effort"
    assert called("think", think=True) == "think"


@pytest.mark.parametrize(
    ("fields", "seconds"), [({"keep_alive": 5}, 5), ({"keep_alive": "1m30s"}, 90), ({"keep_alive": -1}, -1), ({}, None)]
)
def test_keep_alive(fields, seconds):
    assert chat(**fields).keep_alive == seconds


def test_keep_alive_without_a_unit():
    assert refused(keep_alive="5") == "keep_alive"


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, JsonOutput()),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}}}},
         JsonOutput({"a": 1})),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, JsonOutput()),
        ({"grammar": "g"}, Grammar("gbnf", "g")),
        ({"guided_regex": "r"}, Grammar("regex", "r")),
        ({"guided_json": '{"a": 1}'}, JsonOutput({"a": 1})),
        ({"json_schema": {"a": 1}}, JsonOutput({"a": 1})),
        ({"structured_outputs": {"json": {"a": 1}}}, JsonOutput({"a": 1})),
        ({"structured_outputs": {"json_object": True}}, JsonOutput()),
        ({"structured_outputs": {"choice": ["a"]}}, Grammar("gbnf", 'root ::= "a"')),
    ],
)  # fmt: skip
def test_output(fields, output):
    assert chat(**fields).output == output


def test_one_way_to_shape_an_answer():
    assert refused(grammar="g", guided_regex="r") == "guided_regex"
    assert (
        refused(response_format={"type": "json_object"}, structured_outputs={"regex": "r"})
        == "structured_outputs.regex"
    )
    assert refused(guided_json="nonsense") == "guided_json"
    assert called("output", guided_regex="r") == "guided_regex"
    assert called("grammar", guided_regex="r") == "guided_regex"
    assert called("grammar", guided_regex="r", tools=[TOOL]) == "guided_regex"
    assert called("grammar", tools=[TOOL]) == "tools"


def test_choices_are_written_as_they_are():
    assert choice_grammar(['a"b', "c\\\n"]) == Grammar("gbnf", 'root ::= "a\\"b" | "c\\\\\\n"')


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("required", ("f",))),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL, TOOL]}},
            ToolChoice("auto", ("f",)),
        ),
    ],
)
def test_tool_choice(choice, expected):
    request = chat(tools=[TOOL], tool_choice=choice)
    assert request.tool_choice == expected
    assert request.tools == (Tool("f", parameters={"type": "object"}),)
    # One that is named is called once.
    assert request.parallel_tool_calls is (expected.mode == "auto" or expected.names is None)


def test_custom_tools():
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: X"}}
    custom = {"type": "custom", "custom": {"name": "c", "description": "d", "format": grammar}}
    assert chat(tools=[custom]).tools == (Tool("c", "d", kind="custom", grammar=Grammar("lark", "start: X")),)


def test_functions_are_tools_of_one_call():
    request = chat(functions=[FUNCTION], function_call={"name": "f"})
    assert request.tools == (Tool("f", parameters={"type": "object"}),)
    assert request.tool_choice == ToolChoice("required", ("f",))
    assert not request.parallel_tool_calls


def test_messages():
    messages = [
        {"role": "developer", "name": "boss",
         "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]},
        {"role": "assistant", "reasoning": "hm", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": " "}},
            {"id": "2", "type": "custom", "custom": {"name": "c", "input": "free"}}]},
        {"role": "tool", "tool_call_id": "2", "content": "done"},
        {"role": "assistant", "content": None, "refusal": "No."},
    ]  # fmt: skip
    png = b"png"
    request = to_chat(body(messages=messages), {"http://x/y.png": png}).request
    assert request.messages == (
        Message("system", (TextPart("a"), TextPart("b")), name="boss"),
        Message("user", (ImagePart(png),)),
        Message(
            "assistant", thinking="hm", tool_calls=(ToolCall("1", "f", "{}"), ToolCall("2", "c", "free", "custom"))
        ),
        Message("tool", (TextPart("done"),), name="c", tool_call_id="2"),
        Message("assistant", (TextPart("No."),)),
    )


def test_prefill():
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    assert not chat(messages=messages).prefill
    assert chat(messages=messages, continue_final_message=True).prefill
    assert refused(continue_final_message=True) == "continue_final_message"
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}}
    made = {"role": "assistant", "tool_calls": [call]}
    assert refused(messages=[*messages[:1], made], continue_final_message=True) == "continue_final_message"
    assert refused(add_generation_prompt=False) == "add_generation_prompt"


def test_logprobs():
    assert chat().logprobs is None
    assert chat(logprobs=False).logprobs is None
    assert chat(logprobs=True).logprobs == 0
    assert chat(logprobs=True, top_logprobs=3).logprobs == 3
    assert refused(top_logprobs=3) == "top_logprobs"


def test_other_contradictions():
    assert refused(stream_options={"include_usage": True}) == "stream_options"
    assert refused(logit_bias={"x": 1}) == "logit_bias"
    assert refused(options={"num_ctx": "x"}) == "options.num_ctx"


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1], [2, 3]], ((1,), (2, 3)))],
)
def test_prompts(prompt, prompts):
    request = to_completion(check(CompletionBody, {"model": "m", "prompt": prompt}, WORDING, strict=False)[0]).request
    assert request.prompts == prompts
    assert request.options.num_predict == 16
