"""Jinja templates: what they are given, what they may do, what they may not."""

from __future__ import annotations

from datetime import datetime

import pytest

from puna.errors import InvalidRequest, ModelFileError
from puna.template.jinja import JinjaTemplate
from puna.template.shaping import message_json
from puna.types import ImagePart, Message, TextPart, Tool, ToolCall

SYSTEM, USER = Message.of("system", "Be brief."), Message.of("user", "Hi <there> é")


def dump(expression: str, *messages: Message, **arguments: object) -> str:
    template = JinjaTemplate("{{ " + expression + " }}", bos="<s>", eos="</s>")
    shapes = [message_json(message) for message in messages or (SYSTEM, USER)]
    return template.render_json(shapes, None, add_generation_prompt=True, arguments=arguments)  # type: ignore[arg-type]


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_chat() -> None:
    expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <there> é<|im_end|>\n"
    template = JinjaTemplate(CHATML)
    assert template.render((SYSTEM, USER), add_generation_prompt=False) == expected
    assert template.render((SYSTEM, USER)) == expected + "<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("bos_token ~ eos_token", "<s></s>"),
        ("tools is defined", "False"),
        ("messages[-1].content", "Hi <there> é"),
        ("messages[0]['content'].strip('.').upper()", "BE BRIEF"),
        ("{'é': '<', 'n': [1, true, none]} | tojson", '{"é": "<", "n": [1, true, null]}'),
        ("{'a': {'b': 1}} | tojson(indent=1)", '{\n "a": {\n  "b": 1\n }\n}'),
        ("none ~ true", "NoneTrue"),
        ("missing", ""),
        ("flavour", "plain"),
    ],
)
def test_what_templates_see(expression: str, expected: str) -> None:
    assert dump(expression, flavour="plain") == expected


def test_the_date() -> None:
    template = JinjaTemplate("{{ strftime_now('%d %b %Y') }}", now=lambda: datetime(2026, 2, 3))
    assert template.render((USER,)) == "03 Feb 2026"


def test_calls_and_results() -> None:
    call = Message("assistant", tool_calls=(ToolCall("c1", "add", '{"a": 1, "b": {"c": []}}'),))
    result = Message("tool", (TextPart("2"),), name="add", tool_call_id="c1")
    assert dump("messages[-2].tool_calls[0].function.arguments.b | tojson", call, result) == '{"c": []}'
    assert dump("messages[-2].content ~ messages[-1].tool_call_id ~ messages[-1].name", call, result) == "c1add"


def test_thinking_of_the_past() -> None:
    message = Message("assistant", (TextPart("Yes."),), thinking="Hm.")
    assert dump("messages[0].reasoning_content", message) == "Hm."


def test_tools_in_openai_shape() -> None:
    template = JinjaTemplate("{{ tools | tojson }}")
    tool = Tool("add", "Adds.", {"type": "object"})
    assert template.render((USER,), tools=(tool,)) == (
        '[{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}]'
    )


def test_media_stand_as_markers() -> None:
    message = Message("user", (TextPart("Look:"), ImagePart(b"png")))
    assert dump("messages[0].content", message) == "Look:\n<__media__>"


def test_a_template_that_wants_parts_gets_parts() -> None:
    template = JinjaTemplate(
        "{% for m in messages %}{% for part in m.content %}[{{ part.text }}]{% endfor %}{% endfor %}"
    )
    assert template.render((Message("user", (TextPart("a"), TextPart("b"))),)) == "[a][b]"


def test_without_a_place_for_system_its_text_goes_to_the_user() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m.content }}|{% endfor %}"
    )
    assert JinjaTemplate(source).render((SYSTEM, USER)) == "Be brief.\n\nHi <there> é|"


def test_generation_blocks_keep_their_white_space_rules() -> None:
    source = "a\n{% generation %}\nb\n{%- endgeneration %}\nc"
    assert JinjaTemplate(source).render((USER,)) == "a\nbc"


def test_a_refusal_is_the_callers_error() -> None:
    with pytest.raises(InvalidRequest, match="roles must alternate") as caught:
        JinjaTemplate("{{ raise_exception('roles must alternate') }}").render((USER,))
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    ["{% if %}", "{{ 1 / }}", "{% for x in y %}", "{% include 'x' %}", "{{ messages.nothing() }}", "{{ 1 / 0 }}"],
)
def test_a_broken_template_is_the_models_error(source: str) -> None:
    with pytest.raises(ModelFileError, match="chat template"):
        JinjaTemplate(source).render((USER,))


@pytest.mark.parametrize(
    "source",
    [
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{{ 'a' * 1000000000 }}",
        "{{ range(1000000000) }}",
    ],
)
def test_a_hostile_template_ends_by_its_own_language(source: str) -> None:
    with pytest.raises(ModelFileError):
        JinjaTemplate(source).render((USER,))


def test_the_frame_of_a_chat_is_not_the_callers() -> None:
    with pytest.raises(InvalidRequest) as caught:
        JinjaTemplate("1").render((USER,), arguments={"messages": []})
    assert caught.value.param == "template_arguments"
