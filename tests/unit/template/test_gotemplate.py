"""Go templates: the language, then Ollama's data and rules."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from puna.errors import ModelFileError
from puna.model.goparse import parse
from puna.template.facts import CallSyntax, ThinkTags
from puna.template.goexec import execute
from puna.template.gotemplate import GoTemplate
from puna.template.govalues import JsonList, JsonMap, Struct, Value
from puna.types import JsonObject, Message, TextPart, Tool, ToolCall


def run(source: str, **root: Value) -> str:
    return execute(parse(source), root, now=lambda: datetime(2026, 3, 1))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain {} }} text", "plain {} }} text"),
        ("a {{- .X -}} b", "axb"),
        ("a\n\t{{- /* note */ -}}\n b", "ab"),
        ("a {{/* note */}} b", "a  b"),
        ("{{ .Missing }}", "<no value>"),
        ("{{ if .Missing }}yes{{ else }}no{{ end }}", "no"),
        ("{{ if .X }}yes{{ end }}{{ if .Zero }}no{{ end }}", "yes"),
        ("{{ if .Zero }}a{{ else if .X }}b{{ else }}c{{ end }}", "b"),
        ("{{ with .X }}{{ . }}{{ $.Zero }}{{ else }}none{{ end }}", "x0"),
        ("{{ with .Missing }}{{ . }}{{ else }}none{{ end }}", "none"),
        ("{{ range .List }}{{ . }},{{ end }}", "1,2,3,"),
        ("{{ range $i, $e := .List }}{{ $i }}{{ $e }} {{ end }}", "01 12 23 "),
        ("{{ range $k, $v := .Map }}{{ $k }}{{ $v }} {{ end }}", "a1 b2 "),
        ("{{ range .Missing }}x{{ else }}none{{ end }}", "none"),
        ("{{ range .List }}{{ if eq . 2 }}{{ continue }}{{ end }}{{ . }}{{ end }}", "13"),
        ("{{ range .List }}{{ if eq . 2 }}{{ break }}{{ end }}{{ . }}{{ end }}", "1"),
        ("{{ $x := 1 }}{{ range .List }}{{ $x = . }}{{ end }}{{ $x }}", "3"),
        ("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ end }}{{ $x }}", "1"),
        ('{{ eq .X "a" "x" }} {{ ne 1 2 }} {{ lt 1 2 }} {{ ge "b" "a" }}', "true true true true"),
        ("{{ and .X .Zero }} {{ or .Zero .X }} {{ not .X }}", "0 x false"),
        ("{{ or .X (index .List 99) }}", "x"),
        ("{{ len .List }} {{ len .X }} {{ index .List 1 }} {{ index .Map `b` }}", "3 1 2 2"),
        ("{{ len (slice .List 1) }} {{ slice `hello` 1 3 }}", "2 el"),
        ('{{ printf "%s-%d-%v %q %5.2f%%" .X 3 true "a" 1.5 }}', 'x-3-true "a"  1.50%'),
        ('{{ print 1 2 "a" 3 }} {{ .X | printf "%s!" }}', "1 2a3 x!"),
        ('{{ printf "%1000001d|" 1 | len }}', "1000002"),
        ('{{ printf "%.1000000f" 1.0 | len }}', "1000002"),
        ('{{ printf "a%10000010d|%d" 1 2 }}', "a%!(NOVERB)%!(EXTRA int=1, int=2)"),
        ('{{ printf "%.' + "9" * 5000 + 'f|" 1.0 }}', "%!(NOVERB)%!(EXTRA float64=1)"),
        ('{{ printf "%*d|%-*d|" 1000001 7 -3 8 }}', "%!(BADWIDTH)7|8  |"),
        ('{{ printf "%.' + "0" * 5000 + '2f" 1.0 }}', "1.00"),
        ('{{ printf "%.*s|" -3 "abc" }}', "%!(BADPREC)abc|"),
        ("{{ .Map | json }} {{ .Tricky | json }}", '{"a":1,"b":2} "\\u003cé\\u0026\\u003e"'),
        ("{{ currentDate }} {{ yesterdayDate }}", "2026-03-01 2026-02-28"),
        ('{{ "tab\\t\\"q\\"" }}{{ `raw\\n` }}', 'tab\t"q"raw\\n'),
        ("{{ with .Zero }}a{{ else with .X }}{{ . }}{{ end }}", "x"),
        ("{{ with .Zero }}a{{ else with .Empty }}{{ . }}{{ else }}c{{ end }}", "c"),
        ("{{ range $i := 3 }}{{ $i }}{{ end }}{{ range 0 }}a{{ else }}none{{ end }}", "012none"),
        ("{{ (index .Rows 0).b }}", "2"),
        ('{{ define "t" }}[{{ . }}]{{ end }}{{ template "t" .X }}', "[x]"),
        ('{{ block "t" .X }}<{{ . }}>{{ end }}', "<x>"),
        ("{{ range 2 }}{{ . }}{{ end }}", "01"),
    ],
)
def test_the_language(source: str, expected: str) -> None:
    map_: dict[str, Value] = {"b": 2, "a": 1}
    assert run(source, X="x", Zero=0, List=[1, 2, 3], Map=map_, Rows=[map_], Tricky="<é&>") == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ if .X }}",
        "{{ end }}",
        "{{ else }}",
        "{{ }}",
        "{{ .X ",
        "{{ ( .X }}",
        "{{ .X ) }}",
        "{{ nothing .X }}",
        "{{ .X | nothing }}",
        "{{ $y }}",
        "{{ $y = 1 }}",
        "{{ if $y := 1 }}{{ end }}{{ $y }}",
        '{{ template "t" }}',
        '{{ range .X }}{{ template "t" . }}{{ end }}',
        '{{ define "t" }}{{ template "u" }}{{ end }}',
        "{{ break }}",
        "{{ if .X }}{{ else with .X }}{{ end }}",
        "{{ with .X }}{{ else if .X }}{{ end }}",
        '{{ "open }}',
        "{{ template }}",
        "{{ range .X }}{{ else if .Y }}{{ end }}",
        "{{ @ }}",
        "{{ if .X }}" * 200,
        "{{ " + "(" * 500 + " }}",
    ],
)
def test_bad_syntax_is_named_with_its_line(source: str) -> None:
    with pytest.raises(ModelFileError, match="template: :1: "):
        parse(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ nil }}",
        "{{ 1 2 }}",
        "{{ eq 1 }}",
        "{{ range $i, $x := 3 }}{{ end }}",
        "{{ .X.Y }}",
        "{{ index .List 9 }}",
        "{{ slice .List 2 1 }}",
        "{{ lt 1 `a` }}",
        "{{ eq 1 1.0 }}",
        "{{ len 5 }}",
        "{{ range .X }}{{ end }}",
        "{{ .X .X }}",
        '{{ define "t" }}{{ template "t" . }}{{ end }}{{ template "t" . }}',
        "{{ range 2000 }}{{ range 2000 }}x{{ end }}{{ end }}",
        "{{ $x := `aaaaaaaaaa` }}{{ range 60 }}{{ $x = print $x $x }}{{ end }}",
        "{{ range 99999999999 }}{{ end }}",
    ],
)
def test_what_fails_is_the_models_error(source: str) -> None:
    with pytest.raises(ModelFileError, match="template failed"):
        run(source, X="x", List=[1])


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "1" * 100_000 + " }}",
        "{{ " + "n" * 100_000 + " }}",
        "{{/* " * 40_000,
        '{{ "' + "\\" * 100_000,
        "x" * 300_000,
    ],
    ids=lambda source: source[:8],
)
def test_a_hostile_source_is_refused_in_few_words(source: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        parse(source)
    assert len(caught.value.message) < 300


def test_the_line_is_the_one_that_is_wrong() -> None:
    with pytest.raises(ModelFileError, match='template: :3: function "nope" not defined'):
        parse("{{ if .X }}\n{{ end }}\n{{ nope }}")


# ------------------------------------------------------------------------------------------------------- Go's answers

GO_CASES = [json.loads(line) for line in (Path(__file__).parent / "go_templates.jsonl").read_text().splitlines()]
"""What Go 1.19's own text/template made of templates with `go_root` and Ollama's functions: `out`, `refused` by its
parser in these words, or `fails` when it is run.
"""


def go_root() -> dict[str, Value]:
    def message(role: str, content: str, **more: Value) -> Struct:
        fields = {"Role": role, "Content": content, "Thinking": "", "ToolCalls": (), "ToolName": "", "ToolCallID": ""}
        return Struct({**fields, **more}, {"role": role, "content": content})

    shape: JsonObject = {"index": 0, "name": "f", "arguments": {"a": "x", "z": 1}}
    function = Struct({"Index": 0, "Name": "f", "Arguments": JsonMap({"z": 1.0, "a": "x"})}, shape)
    call = Struct({"ID": "c1", "Function": function}, {"id": "c1", "function": shape})
    called = Struct(
        message("assistant", "", Thinking="T", ToolCalls=JsonList([call])).fields,
        {"role": "assistant", "content": "", "thinking": "T", "tool_calls": [call.shape]},
    )
    result: JsonObject = {"role": "tool", "content": "R", "tool_name": "f", "tool_call_id": "c1"}
    answered = Struct(message("tool", "R", ToolName="f", ToolCallID="c1").fields, result)
    map_: dict[str, Value] = {"a": 1, "b": 2}
    return {
        **{"X": "x", "Zero": 0, "One": 1, "F": 1.5, "Big": 1000000.0, "T": True, "No": False, "Empty": "", "Nil": None},
        **{"U": "é<&>\"'日", "List": [1, 2, 3], "None": [], "Map": map_, "Rows": [map_]},
        "Messages": JsonList([message("system", "S"), message("user", "<U>"), called, answered]),
    }


@pytest.mark.parametrize("case", GO_CASES, ids=lambda case: case["source"])
def test_as_go_itself(case: dict[str, str]) -> None:
    if refusal := case.get("refused"):
        with pytest.raises(ModelFileError, match=f"^{re.escape(refusal)}$"):
            parse(case["source"])
        return
    tree = parse(case["source"])
    if "fails" in case:
        with pytest.raises(ModelFileError, match="template failed"):
            run(case["source"], **go_root())
    else:
        assert execute(tree, go_root(), now=lambda: datetime(2026, 3, 1)) == case["out"]


# ------------------------------------------------------------------------------------------------------ Ollama's rules

SYSTEM, USER, ANSWER = Message.of("system", "S"), Message.of("user", "U"), Message.of("assistant", "A")

LEGACY = (
    "{{ if .System }}<s>{{ .System }}</s>{{ end }}{{ if .Prompt }}<u>{{ .Prompt }}</u>{{ end }}<a>{{ .Response }}</a>"
)

FULL = """\
{{- if or .System .Tools }}<sys>{{ .System }}
{{- range .Tools }}{{ .Function }}{{ end }}</sys>{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if eq .Role "user" }}<u>{{ .Content }}</u>
{{- else if eq .Role "tool" }}<t>{{ .Content }}</t>
{{- else if eq .Role "assistant" }}<a>
{{- if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}
{{- range .ToolCalls }}<tool_call>{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}</tool_call>
{{- end }}
{{- if not $last }}</a>{{ end }}{{ end }}
{{- if and $last (ne .Role "assistant") }}<a>{{ if and $.IsThinkSet (not $.Think) }}<think></think>{{ end }}{{ end }}
{{- end }}"""


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((USER,), "<u>U</u><a>"),
        ((SYSTEM, USER), "<s>S</s><u>U</u><a>"),
        ((SYSTEM, USER, ANSWER, USER), "<s>S</s><u>U</u><a>A</a><u>U</u><a>"),
        ((USER, ANSWER), "<u>U</u><a>A"),
        ((USER, SYSTEM, USER), "<u>U</u><a></a><s>S</s><u>U</u><a>"),
        ((USER, USER), "<u>U\n\nU</u><a>"),
    ],
)
def test_one_run_a_turn_without_messages(messages: tuple[Message, ...], expected: str) -> None:
    assert GoTemplate(LEGACY).render(messages) == expected


def test_a_template_without_a_place_for_the_answer_gets_one() -> None:
    assert GoTemplate("{{ .Prompt }}: ").render((USER, ANSWER, USER)) == "U: AU: "


def test_messages_and_system() -> None:
    assert GoTemplate(FULL).render((SYSTEM, USER, ANSWER, USER)) == "<sys>S</sys><u>U</u><a>A</a><u>U</u><a>"


def test_messages_of_one_role_are_joined() -> None:
    assert GoTemplate(FULL).render((SYSTEM, SYSTEM, USER, USER)) == "<sys>S\n\nS</sys><u>U\n\nU</u><a>"


def test_tools_calls_and_results() -> None:
    schema = {"type": "object", "required": ["b"], "properties": {"b": {"type": "string", "enum": ["<", "é"]}, "a": {}}}
    tool = Tool("add", "Adds.", schema)  # type: ignore[arg-type]
    call = Message("assistant", tool_calls=(ToolCall("1", "add", '{"b": 1.0, "a": [true, null]}'),))
    result = Message("tool", (TextPart("R"),), name="add")
    text = GoTemplate(FULL).render((USER, call, result, result), tools=(tool,))
    assert text == (
        '<sys>{"name":"add","description":"Adds.","parameters":{"type":"object","required":["b"],'
        '"properties":{"a":{},"b":{"type":"string","enum":["\\u003c","é"]}}}}</sys>'
        '<u>U</u><a><tool_call>{"name": "add", "arguments": {"a":[true,null],"b":1}}</tool_call></a><t>R</t><t>R</t><a>'
    )


def test_what_it_can_do_is_found_out_as_for_jinja() -> None:
    facts = GoTemplate(FULL).facts
    assert facts.system
    assert facts.tools
    assert facts.tool_results
    assert facts.switch
    assert facts.syntax == CallSyntax('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "true true 'medium'"),
        ({"enable_thinking": True}, "true true 'medium'"),
        ({"enable_thinking": False}, "false true ''"),
        ({"enable_thinking": True, "reasoning_effort": "high"}, "true true 'high'"),
    ],
)
def test_think(arguments: dict[str, bool | str], expected: str) -> None:
    template = GoTemplate(THINKS + "{{ .Think }} {{ .IsThinkSet }} '{{ .ThinkLevel }}'")
    assert template.render((USER,), arguments=arguments).endswith(expected)  # type: ignore[arg-type]


THINKS = "{{ range .Messages }}{{ if .Thinking }}<mull>{{ .Thinking }}</mull>{{ end }}{{ .Content }}{{ end }}"


def test_a_template_that_shows_no_thought_is_told_nothing_of_thinking() -> None:
    assert GoTemplate("{{ .Messages }}{{ .Think }} {{ .IsThinkSet }}").render((USER,)).endswith("false false")


@pytest.mark.parametrize(
    ("source", "tags"),
    [
        (THINKS, ThinkTags("<mull>", "</mull>")),
        (FULL, ThinkTags("<think>", "</think>")),
        (
            "{{ range $m := .Messages }}<a>{{ with $m.Thinking }}[T]\n{{ . }}\n[/T]{{ end }}{{ $m.Content }}{{ end }}",
            ThinkTags("[T]", "[/T]"),
        ),
        # Only for turns that no trial has, so it is read.
        (
            "{{ range .Messages }}{{ if eq .Role `x` }}<mull>{{ .Thinking }}</mull>{{ end }}{{ .Content }}{{ end }}",
            ThinkTags("<mull>", "</mull>"),
        ),
        ("{{ range .Messages }}{{ .Thinking }}{{ .Content }}{{ end }}", None),
        ("{{ range .Messages }}{{ .Content }}{{ end }}", None),
    ],
)
def test_the_tags_around_thinking_are_the_templates(source: str, tags: ThinkTags | None) -> None:
    assert GoTemplate(source).facts.thinking == tags


def test_a_message_prints_as_go_marshals_it() -> None:
    call = ToolCall("c1", "f", '{"b": 1, "a": "<"}')
    messages = (Message("assistant", (TextPart("A"),), thinking="T", tool_calls=(call,)), USER)
    said = GoTemplate("{{ range .Messages }}{{ json . }}\n{{ end }}").render(messages).splitlines()
    assert said == [
        '{"role":"assistant","content":"A","thinking":"T","tool_calls":[{"id":"c1","function":{"index":0,"name":"f",'
        '"arguments":{"a":"\\u003c","b":1}}}]}',
        '{"role":"user","content":"U"}',
    ]


def test_joined_messages_lose_neither_calls_nor_thoughts() -> None:
    one = Message("assistant", (TextPart("A"),), thinking="T", tool_calls=(ToolCall("1", "f", "{}"),))
    two = Message("assistant", (TextPart("B"),), thinking="V", tool_calls=(ToolCall("2", "g", "{}"),))
    calls = "{{ range .ToolCalls }}{{ .Function.Name }}{{ end }}"
    source = f"{{{{ range .Messages }}}}{{{{ .Content }}}}|{{{{ .Thinking }}}}|{calls}{{{{ end }}}}"
    assert GoTemplate(source).render((one, two)) == "A\n\nB|T\n\nV|fg"


def test_it_is_told_which_turn_is_the_first() -> None:
    template = GoTemplate("{{ if .First }}^{{ end }}{{ .Prompt }}/{{ .Response }}")
    assert template.render((USER, ANSWER, USER)) == "^U/AU/"


def test_what_a_template_drops_is_told() -> None:
    assert not GoTemplate("Q: {{ .Input }} A:").facts.user
    assert GoTemplate(LEGACY).facts.user
    assert not GoTemplate(LEGACY).facts.names


def test_filling_in_the_middle() -> None:
    template = GoTemplate("{{ if .Suffix }}<pre>{{ .Prompt }}<suf>{{ .Suffix }}<mid>{{ else }}{{ .Prompt }}{{ end }}")
    assert template.inserts
    assert template.insert("a(", ")") == "<pre>a(<suf>)<mid>"
    assert not GoTemplate(LEGACY).inserts
