"""What templates can do, told by trying them. These are written for the test, after the habits of real ones."""

from __future__ import annotations

import pytest

from puna.template.facts import CallSyntax, ThinkTags
from puna.template.jinja import JinjaTemplate

HERMES = """\
{%- if tools %}<|im_start|>system
{{ messages[0].content if messages[0].role == 'system' }}
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}<|im_start|>user
<tool_response>{{ m.content }}</tool_response><|im_end|>
{% elif m.role != 'system' %}<|im_start|>{{ m.role }}
{%- if m.content %}{{ '\n' + m.content }}{% endif %}
{%- for call in m.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""

BARE_JSON = """\
{%- for m in messages %}
{%- if m.tool_calls %}{%- set call = m.tool_calls[0].function %}
{{- '[assistant]' }}{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}[E]
{%- else %}[{{ m.role }}]{{ tools | tojson if tools }}{{ m.content }}[E]{% endif %}
{%- endfor %}"""

ARRAY = """\
{%- for m in messages %}
{%- if m.tool_calls %}[TOOL_CALLS][
{%- for call in m.tool_calls %}{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
{%- if not loop.last %}, {% endif %}{% endfor %}]</s>
{%- elif m.role == 'assistant' %}{{ m.content }}</s>
{%- else %}[INST]{{ tools | tojson if tools }}{{ m.content }}[/INST]{% endif %}
{%- endfor %}"""

XML = HERMES.replace(
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}',
    (
        "<function={{ call.function.name }}>{% for k, v in call.function.arguments | items %}<parameter={{ k }}>{{ v }}"
        "</parameter>{% endfor %}</function>"
    ),
)


def test_a_template_that_knows_all() -> None:
    facts = JinjaTemplate(HERMES).facts
    assert facts.system
    assert facts.tools
    assert facts.tool_calls
    assert facts.tool_results
    assert facts.switch
    assert facts.levels == ()
    assert not facts.parts
    assert facts.thinking == ThinkTags("<think>", "</think>")


def test_a_template_that_knows_nothing() -> None:
    facts = JinjaTemplate(
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    ).facts
    assert not any((facts.system, facts.tools, facts.tool_calls, facts.tool_results, facts.switch))
    assert facts.thinking is None
    assert facts.syntax is None


@pytest.mark.parametrize(
    ("source", "syntax", "mark"),
    [
        (HERMES, CallSyntax('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>"), "<tool_call>"),
        (BARE_JSON, CallSyntax('{"name": "', '", "parameters": ', "}"), ""),
        (ARRAY, CallSyntax('[TOOL_CALLS][{"name": "', '", "arguments": ', "}]", array=True), "[TOOL_CALLS]"),
    ],
)
def test_how_calls_are_written(source: str, syntax: CallSyntax, mark: str) -> None:
    assert JinjaTemplate(source).facts.syntax == syntax
    assert syntax.mark == mark


def test_calls_without_json_have_no_syntax_to_tell() -> None:
    facts = JinjaTemplate(XML).facts
    assert facts.tool_calls
    assert facts.syntax is None


@pytest.mark.parametrize(
    ("arguments", "raw"),
    [
        ("{{ call.function.arguments | tojson }}", True),
        ("{{ call.function.arguments }}", True),
        ("{% for k, v in call.function.arguments | items %}{{ k }}{{ v }}{% endfor %}", False),
    ],
)
def test_whether_arguments_may_be_text(arguments: str, raw: bool) -> None:
    calls = "{% for call in m.tool_calls or [] %}{{ call.function.name }}" + arguments + "{% endfor %}"
    source = "{% for m in messages %}{{ m.content }}" + calls + "{% endfor %}"
    assert JinjaTemplate(source).facts.raw_arguments is raw


def test_whether_ids_have_nine_letters() -> None:
    calls = "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}CHECK{% endfor %}"
    source = "{% for m in messages %}{{ m.content }}" + calls + "{% endfor %}"
    check = "{% if c.id | length != 9 %}{{ raise_exception('no') }}{% endif %}"
    assert JinjaTemplate(source.replace("CHECK", "")).facts.any_id
    assert not JinjaTemplate(source.replace("CHECK", check)).facts.any_id


REFUSES = "{% if reasoning_effort is defined and reasoning_effort != 'high' %}{{ raise_exception('no') }}{% endif %}"


@pytest.mark.parametrize(
    ("level", "known"),
    [
        ("", ()),
        ("{{ reasoning_effort }}", ("low", "medium", "high")),
        ("{{ 'hard' if reasoning_effort in ['high', 'max'] else 'some' }}", ("low", "medium", "high", "max")),
        ("{{ {'minimal': 1, 'low': 2, 'high': 3}[reasoning_effort] }}", ("minimal", "low", "medium", "high")),
        ("{{ reasoning_effort | default('') }}" + REFUSES, ("high",)),
    ],
)
def test_the_levels_that_it_knows(level: str, known: tuple[str, ...]) -> None:
    assert JinjaTemplate("{{ messages[0].content }}" + level).facts.levels == known


@pytest.mark.parametrize(
    ("source", "tags"),
    [
        # Tags of nobody else's.
        (
            "{% for m in messages %}<{{ m.role }}>{% if m.reasoning_content %}<mull>\n{{ m.reasoning_content }}\n"
            "</mull>\n{% endif %}{{ m.content }}{% endfor %}",
            ThinkTags("<mull>", "</mull>"),
        ),
        # In the other word for a thought, and an empty one for every other answer.
        (
            "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}<think>{{ m.thinking or '' }}"
            "</think>{% endif %}{{ m.content }}{% endfor %}",
            ThinkTags("<think>", "</think>"),
        ),
        ("{% for m in messages %}{{ m.reasoning_content }}{{ m.content }}{% endfor %}", None),
    ],
)
def test_tags_that_a_trial_shows(source: str, tags: ThinkTags | None) -> None:
    assert JinjaTemplate(source).facts.thinking == tags


def test_names_and_users_words() -> None:
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    named = "{% for m in messages %}{{ m.name or '' }}: {{ m.content }}{% endfor %}"
    assert (JinjaTemplate(plain).facts.names, JinjaTemplate(named).facts.names) == (False, True)
    assert JinjaTemplate(plain).facts.user
    assert not JinjaTemplate("{% for m in messages %}{{ m.role }}{% endfor %}").facts.user
    assert JinjaTemplate("{{ raise_exception('no') }}").facts.user
    # One that takes the first message for a system's.
    assert JinjaTemplate("{% for m in messages[1:] %}{{ m.content }}{% endfor %}").facts.user
