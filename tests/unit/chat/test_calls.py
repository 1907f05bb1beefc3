from __future__ import annotations

import itertools
import json
import random
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.gbnf_reader import Gbnf
from puna.chat.calls import (
    DEFAULT_SYNTAX,
    MAX_CALLS,
    CallPlan,
    Piece,
    PieceCallArguments,
    PieceCallStart,
    PieceText,
    new_call_id,
    plan_calls,
)
from puna.errors import InvalidRequest
from puna.grammar.schema import conforms
from puna.template.facts import CallSyntax
from puna.types import Grammar, JsonObject, JsonOutput, Tool, ToolChoice

WEATHER = Tool(
    "get_weather",
    "The weather of a place.",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
        "required": ["city"],
    },
)
ADD = Tool("add", parameters={"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]})
FREE = Tool("run", "Runs code.", kind="custom")
PICK = Tool("pick", kind="custom", grammar=Grammar("regex", '[a-c]{2,4}\\n"x"?'))
SUM = Tool(
    "sum",
    kind="custom",
    grammar=Grammar("lark", 'start: term ("+" term)*\nterm: INT | "(" start ")"\n%import common.INT\n'),
)
TOOLS = (WEATHER, ADD, Tool("now"), FREE, PICK, SUM)

LLAMA = CallSyntax('{"name": "', '", "parameters": ', "}")
MISTRAL = CallSyntax('[TOOL_CALLS] [{"name": "', '", "arguments": ', ', "id": "abcdef123"}]', array=True)
FUNCTION = CallSyntax("<function=", ">", "</function>")
ARGS = CallSyntax("[TOOL_CALLS]", "[ARGS]", "")
SYNTAXES = {"default": None, "llama": LLAMA, "mistral": MISTRAL, "function": FUNCTION, "args": ARGS}
ANSWER = JsonOutput({"type": "object", "properties": {"q": {"type": "integer"}}, "required": ["q"]})


def plan(
    choice: ToolChoice | None = None,
    *,
    tools: tuple[Tool, ...] = TOOLS,
    syntax: CallSyntax | None = None,
    parallel: bool = True,
    output: Any = None,
) -> CallPlan:
    return plan_calls(
        tools, choice or ToolChoice(), parallel=parallel, native=syntax is not None, syntax=syntax, output=output
    )


def read(made: CallPlan, *pieces: str) -> tuple[list[Piece], str | None]:
    """What the parser makes of the pieces, neighbours of one kind joined, and its parse error."""
    numbers = itertools.count(1)
    parser = made.parser(lambda: f"call_{next(numbers)}")
    joined: list[Piece] = []
    for piece in [part for text in pieces for part in parser.feed(text)] + parser.finish():
        last = joined[-1] if joined else None
        if isinstance(piece, PieceText) and isinstance(last, PieceText):
            joined[-1] = PieceText(last.text + piece.text)
        elif isinstance(piece, PieceCallArguments) and isinstance(last, PieceCallArguments):
            joined[-1] = PieceCallArguments(last.text + piece.text)
        else:
            joined.append(piece)
    return joined, parser.parse_error


def names(pieces: list[Piece]) -> list[str]:
    return [piece.name for piece in pieces if isinstance(piece, PieceCallStart)]


def texts(pieces: list[Piece]) -> list[str]:
    return [piece.text for piece in pieces if isinstance(piece, PieceText)]


# ------------------------------------------------------------------------------------------ grammar and parser together


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("output", [None, ANSWER], ids=["text", "schema"])
@pytest.mark.parametrize(
    "choice",
    [ToolChoice(), ToolChoice("required"), ToolChoice("required", ("add",)), ToolChoice("auto", ("add", "pick"))],
    ids=["auto", "required", "named", "allowed"],
)
@pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "single"])
def test_what_the_grammar_allows_is_read_as_it_was_asked_for(
    syntax: str, output: Any, choice: ToolChoice, parallel: bool
) -> None:
    made = plan(choice, syntax=SYNTAXES[syntax], output=output, parallel=parallel)
    assert made.constraint is not None
    grammar = Gbnf(made.constraint)
    chance = random.Random(f"{syntax}{choice}{parallel}")
    by_name = {tool.name: tool for tool in TOOLS}
    called = 0
    for _ in range(15):
        text = grammar.walk(chance, 120)
        cuts = sorted(chance.randint(0, len(text)) for _ in range(4))
        pieces, error = read(made, text)
        assert read(made, *(text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)]))) == (pieces, error)
        assert error is None, text
        found = names(pieces)
        called += len(found)
        assert set(found) <= set(choice.names or by_name)
        assert len(found) <= (MAX_CALLS if parallel else 1)
        if choice.mode == "required":
            assert found, text
            assert not texts(pieces)
        elif output is not None and not found:
            assert conforms(text, ANSWER.schema) is None
        for start, arguments in itertools.pairwise(pieces):
            if isinstance(start, PieceCallStart) and by_name[start.name].kind == "function":
                assert isinstance(arguments, PieceCallArguments)
                assert conforms(arguments.text, by_name[start.name].parameters) is None
    assert called


def test_a_call_streams_its_header_once_and_its_arguments_verbatim() -> None:
    parser = plan().parser(lambda: "call_1")
    assert parser.feed("Let me see. <tool") == [PieceText("Let me see.")]
    assert parser.feed('_call>\n{"name": "get_wea') == []
    assert parser.feed('ther", "arguments": ') == []
    assert parser.feed('{"city": "Pun') == [
        PieceCallStart("call_1", "get_weather"),
        PieceCallArguments('{"city": "Pun'),
    ]
    assert parser.feed('o"}') == [PieceCallArguments('o"}')]
    assert parser.feed("}\n</tool_call>") == []
    assert parser.finish() == []
    assert parser.parse_error is None


def test_a_custom_call_is_unwrapped_to_its_text() -> None:
    body = 'print("hé 😀")\n\t\\'
    for arguments in (json.dumps({"input": body}), json.dumps({"input": body}, ensure_ascii=False)):
        text = f'<tool_call>{{"name": "run", "arguments": {arguments}}}</tool_call>'
        assert read(plan(), *text) == ([PieceCallStart("call_1", "run", "custom"), PieceCallArguments(body)], None)


def test_several_calls_and_the_white_space_between_them() -> None:
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    other = call.replace("now", "add").replace("{}", '{"a": 1}')
    pieces, error = read(plan(), f"Yes.\n\n{call}\n{other}\n")
    assert texts(pieces) == ["Yes."]
    assert names(pieces) == ["now", "add"]
    assert error is None


def test_an_array_of_calls() -> None:
    made = plan(syntax=MISTRAL)
    call = '{"name": "now", "arguments": {}, "id": "Zz09aB12c"}'
    other = call.replace("now", "add").replace("{}", '{"a": 1}')
    assert names(read(made, f"[TOOL_CALLS] [{call}, {other}]")[0]) == ["now", "add"]
    assert names(read(made, f"[TOOL_CALLS][{call}]")[0]) == ["now"]


@pytest.mark.parametrize(
    ("text", "syntax"),
    [
        ("plain text", None),
        ("a < b, <tool>, <tool_cal", None),
        ("  spaces around  ", None),
        ('{"name": "Ada", "age": 36}', LLAMA),
        ('{"name": "ad', LLAMA),
        ('An object: {"name": "add", "parameters": {"a": 1}}', LLAMA),
        ("[1, 2]", LLAMA),
    ],
)
def test_text_stays_text(text: str, syntax: CallSyntax | None) -> None:
    assert read(plan(syntax=syntax), *text) == ([PieceText(text)], None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>', "unknown"),
        ("<tool_call>get_weather(Puno)</tool_call>", "not written as one"),
        ('<tool_call>{"name": "add", "arguments": 3}</tool_call>', "without a JSON object"),
        ('see <tool_call>{"name": "add", "argu', "ended before its arguments"),
        (' <tool_call> <tool_call>{"name": ', "not written as one"),
    ],
)
def test_what_is_not_a_call_is_text_and_reported(text: str, said: str) -> None:
    pieces, error = read(plan(), *text)
    assert texts(pieces) == [text]
    assert names(pieces) == []
    assert said in (error or "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"city": "Pu', "ended too early"),
        ('{"city": 3}}</tool_call>', "do not fit"),
        ('{"city": }}</tool_call>', "not JSON"),
        ('{"city": "Puno"} and more', "unexpected text"),
    ],
)
def test_arguments_that_are_wrong_are_reported(arguments: str, said: str) -> None:
    pieces, error = read(plan(), '<tool_call>{"name": "get_weather", "arguments": ' + arguments)
    assert names(pieces) == ["get_weather"]
    assert said in (error or "")


@pytest.mark.parametrize("mark", ["\n<", "\n<tool_call", " <tool_call>", '\n<tool_call>\n{"na'])
def test_a_second_call_that_is_cut_before_its_arguments_is_text_and_reported(mark: str) -> None:
    call = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
    pieces, error = read(plan(), *call, *mark)
    assert names(pieces) == ["add"]
    assert "".join(texts(pieces)).strip() == mark.strip()
    assert "ended before its arguments" in (error or "")
    assert read(plan(), call + "\n")[1] is None


@cache
def planned(syntax: CallSyntax | None) -> CallPlan:
    return plan(syntax=syntax)


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            [
                *(
                    "<tool_call>",
                    "</tool_call>",
                    '{"name": "',
                    "add",
                    "run",
                    '", "arguments": ',
                    '{"a": 1}',
                    "}",
                    "\n",
                    " ",
                ),
                *(
                    '{"input": "',
                    "\\ud83d",
                    "\\ude00",
                    "\\u00",
                    '\\"',
                    "é",
                    '"}',
                    "[TOOL_CALLS]",
                    "[ARGS]",
                    "<",
                    "text",
                    "[{",
                ),
            ]
        ),
        max_size=14,
    ),
    seed=st.integers(0, 2**32),
    syntax=st.sampled_from([None, LLAMA, MISTRAL, ARGS]),
)
def test_any_text_in_any_pieces_reads_the_same_and_never_fails(
    parts: list[str], seed: int, syntax: CallSyntax | None
) -> None:
    made = planned(syntax)
    text = "".join(parts)
    chance = random.Random(seed)
    cuts = sorted(chance.randint(0, len(text)) for _ in range(5))
    assert read(made, *(text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)]))) == read(made, text)


def test_many_marks_in_one_piece() -> None:
    text = "<tool_call>" * 5_000
    assert texts(read(plan(), text)[0]) == [text]


# ------------------------------------------------------------------------------------------------------------- planning


def test_none_calls_nothing_and_reads_no_calls() -> None:
    made = plan(ToolChoice("none"))
    assert made == CallPlan()
    text = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    assert read(made, *text) == ([PieceText(text)], None)


def test_without_tools_the_output_alone_decides() -> None:
    made = plan(tools=(), output=ANSWER)
    assert made.constraint is not None
    assert Gbnf(made.constraint).accepts('{"q": 1}')
    assert plan(tools=()) == CallPlan()


def test_a_template_that_knows_tools_renders_them_and_the_others_are_told() -> None:
    native = plan(syntax=FUNCTION)
    assert native.instructions is None
    assert [tool.kind for tool in native.tools] == ["function"] * len(TOOLS)
    assert native.tools[3].parameters == {
        "type": "object",
        "properties": {"input": {"type": "string"}},
        "required": ["input"],
    }
    told = plan(ToolChoice("required", ("add",)), parallel=False)
    assert told.tools == ()
    assert told.instructions is not None
    assert '"name": "add"' in told.instructions
    assert "get_weather" not in told.instructions
    assert DEFAULT_SYNTAX.before in told.instructions


def test_a_template_whose_way_of_calling_is_unknown_is_told_too() -> None:
    made = plan_calls(TOOLS, ToolChoice(), parallel=True, native=True, syntax=None, output=None)
    assert made.tools == ()
    assert made.instructions is not None


HALVES = {
    r"\ud800": r"\ufffd",
    r"\ud83d\ude00x": r"\ud83d\ude00x",
    r"\ude00\uD83D": r"\ufffd\ufffd",
    r"\ud83d\n": r"\ufffd\n",
    r"\ud83d\ud83d\uDE00": r"\ufffd\ud83d\uDE00",
    r"\\ud83d": r"\\ud83d",
    r"\ud83d\u00e9": r"\ufffd\u00e9",
    r"\ud83d\\": r"\ufffd\\",
    r"\ud83dz": r"\ufffdz",
    r"\u0041\"\/": r"\u0041\"\/",
}


@pytest.mark.parametrize("written", HALVES)
def test_half_a_character_in_an_argument_is_told_as_one_that_nobody_has(written: str) -> None:
    """Its text could be read by few clients, and sent back by none."""
    city = Tool("city", parameters={"type": "object", "properties": {"a": {"type": "string"}}})
    text = f'<tool_call>\n{{"name": "city", "arguments": {{"a": "{written}"}}}}\n</tool_call>'
    wanted, made = f'{{"a": "{HALVES[written]}"}}', plan(tools=(city,))
    for cut in range(len(text)):
        pieces, error = read(made, text[:cut], text[cut:])
        assert error is None
        assert pieces == [PieceCallStart("call_1", "city", "function"), PieceCallArguments(wanted)]
    assert read(made, *text)[0] == [
        PieceCallStart("call_1", "city", "function"),
        PieceCallArguments(wanted),
    ]


@pytest.mark.parametrize("written", HALVES)
def test_half_a_character_in_a_free_text_too(written: str) -> None:
    text = f'<tool_call>\n{{"name": "run", "arguments": {{"input": "{written}"}}}}\n</tool_call>'
    wanted = [PieceCallStart("call_1", "run", "custom"), PieceCallArguments(json.loads(f'"{HALVES[written]}"'))]
    made = planned(None)
    for cut in range(len(text)):
        assert read(made, text[:cut], text[cut:]) == (wanted, None)
    assert read(made, *text) == (wanted, None)


_ROW: JsonObject = {"$ref": "#/$defs/row"}
ROWS: JsonObject = {
    "$defs": {
        "row": {
            "anyOf": [
                {"type": "array", "items": _ROW},
                {"type": "array", "items": {"anyOf": [_ROW, {"const": 1}]}},
            ]
        }
    },
    "type": "object",
    "properties": {"row": _ROW},
    "required": ["row"],
}
"""Each bracket of a row may be of either kind: there are twice as many readings after each."""


def test_what_can_be_read_in_ever_more_ways_is_loosened_by_name() -> None:
    made = plan(tools=(ADD, Tool("rows", parameters=ROWS)))
    assert made.ignored == ("tools[1].parameters",)
    assert made.callable["rows"].parameters == {"type": "object"}
    assert made.callable["add"].parameters == ADD.parameters
    assert made.constraint is not None
    begin = '<tool_call>\n{"name": "rows", "arguments": {"row": '
    assert Gbnf(made.constraint).readings(begin + "[" * 6) < 40


@pytest.mark.parametrize(
    ("tools", "choice", "param"),
    [
        ((), ToolChoice("required"), "tool_choice"),
        (TOOLS, ToolChoice("required", ("nope",)), "tool_choice"),
        (TOOLS, ToolChoice("required", ()), "tool_choice"),
        ((ADD, ADD), ToolChoice(), "tools"),
        ((ADD, Tool('a "b"')), ToolChoice(), "tools[1].name"),
        ((ADD, Tool("")), ToolChoice(), "tools[1].name"),
        (
            (ADD, Tool("bad", parameters={"not": {"type": "null"}}, strict=True)),
            ToolChoice(),
            "tools[1].parameters",
        ),
        ((ADD, Tool("bad", parameters={"type": "array"})), ToolChoice("required", ("bad",)), "tool_choice"),
        ((Tool("bad", parameters={"type": "array"}),), ToolChoice("required"), "tools[0].parameters"),
        (
            (Tool("bad", kind="custom", grammar=Grammar("regex", "(?=a)")),),
            ToolChoice(),
            "tools[0].grammar",
        ),
        ((ADD, Tool("rows", parameters=ROWS, strict=True)), ToolChoice(), "tools[1]"),
        (
            (ADD, Tool("rows", kind="custom", grammar=Grammar("lark", 'start: s\ns: "a" s s | "a"'))),
            ToolChoice(),
            "tools[1].grammar",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(tools: tuple[Tool, ...], choice: ToolChoice, param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        plan(choice, tools=tools)
    assert refusal.value.param == param


def test_dear_patterns_refuse_no_tool_beside_them() -> None:
    """One is held in every tool that has it; of many different ones those are loosened that are too many."""
    pattern = r"^(?=.{1,%d}\.?$)[a-z](?:[a-z-]{0,61}[a-z])?(?:\.[a-z](?:[-a-z]{0,61}[a-z])?)*\.?$"

    def hosts(*longest: int) -> tuple[Tool, ...]:
        kinds = [{"type": "string", "pattern": pattern % most} for most in longest]
        return tuple(
            Tool(f"t{place}", parameters={"type": "object", "properties": {"host": kind}})
            for place, kind in enumerate(kinds)
        )

    assert plan(tools=hosts(253, 253, 253, 253)).ignored == ()
    ignored = plan(tools=(*hosts(*range(240, 252)), WEATHER)).ignored
    assert ignored
    assert {path.partition(".")[2] for path in ignored} == {"parameters/properties/host/pattern"}


def test_what_a_loose_tool_says_and_is_not_enforced_is_named() -> None:
    tags = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    tool = Tool("tag", parameters={"type": "object", "properties": {"tags": tags}, "required": ["tags"]})
    made = plan(tools=(ADD, tool))
    assert made.ignored == ("tools[1].parameters/properties/tags/uniqueItems",)
    assert made.constraint is not None
    grammar = Gbnf(made.constraint)
    assert grammar.accepts('<tool_call>{"name": "tag", "arguments": {"tags": ["a", "a"]}}</tool_call>')
    assert not grammar.accepts('<tool_call>{"name": "tag", "arguments": {"tags": [1]}}</tool_call>')


def test_a_grammar_of_ones_own_beside_tools() -> None:
    made = plan(tools=(ADD,), output=Grammar("gbnf", 'root ::= "yes" | no # or no\nno ::= "no"\n'))
    assert made.constraint is not None
    grammar = Gbnf(made.constraint.replace(" # or no", ""))
    assert grammar.accepts("yes")
    assert grammar.accepts('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>')
    assert not grammar.accepts("maybe")


def test_ids_look_like_openais_and_differ() -> None:
    ids = {new_call_id() for _ in range(50)}
    assert len(ids) == 50
    assert all(len(call) == 29 and call.startswith("call_") for call in ids)


# ----------------------------------------------------------------------------------------------------- a call again


def made_call(name: str, arguments: str, syntax: str) -> str:
    form = SYNTAXES[syntax] or DEFAULT_SYNTAX
    return f"{form.before}{name}{form.between}{arguments}{form.after}"


ONE_BY_ONE = [name for name in SYNTAXES if name != "mistral"]
PARIS, OSLO = '{"city": "Paris"}', '{"city": "Oslo"}'


@pytest.mark.parametrize("syntax", ONE_BY_ONE)
@pytest.mark.parametrize("width", [1, 3, 1000])
def test_a_call_again_word_for_word_is_the_end(syntax: str, width: int) -> None:
    calls = [("get_weather", PARIS), ("get_weather", OSLO), ("get_weather", OSLO), ("add", '{"a": 1}')]
    text = "\n".join(made_call(*call, syntax) for call in calls)
    parser = plan(syntax=SYNTAXES[syntax]).parser()
    pieces = [
        piece for at in range(0, len(text), width) for piece in parser.feed(text[at : at + width])
    ] + parser.finish()
    arguments = "".join(piece.text for piece in pieces if isinstance(piece, PieceCallArguments))
    assert (names(pieces), arguments) == (["get_weather"] * 2, PARIS + OSLO)
    assert parser.repeated
    assert parser.parse_error is None


@pytest.mark.parametrize("again", ['{"city":"Paris"}', '{\n  "city" :\t"Paris"\n}', '{ "city": "Paris" }'])
@pytest.mark.parametrize("width", [1, 3, 1000])
def test_white_space_makes_no_other_call(again: str, width: int) -> None:
    text = "\n".join(made_call("get_weather", arguments, "default") for arguments in (OSLO, PARIS, again, again))
    pieces, _ = read(plan(), *(text[at : at + width] for at in range(0, len(text), width)))
    assert [piece.text for piece in pieces if isinstance(piece, PieceCallArguments)] == [OSLO, PARIS]


@pytest.mark.parametrize(
    "calls",
    [
        [("get_weather", '{"city": "a\\" b"}'), ("get_weather", '{"city": "a\\"b"}')],
        [("get_weather", PARIS), ("get_weather", '{"city": " Paris"}')],
        [("get_weather", PARIS), ("get_weather", OSLO), ("get_weather", PARIS)],
        [("get_weather", PARIS), ("now", PARIS)],
        [("get_weather", PARIS), ("get_weather", '{"city": "Paris", "days": 2}')],
        [("get_weather", '{"city": "Paris", "days": 2}'), ("get_weather", PARIS)],
    ],
)
def test_calls_that_differ_are_all_made(calls: list[tuple[str, str]]) -> None:
    made = plan()
    pieces, _ = read(made, *(made_call(*call, "default") for call in calls))
    assert names(pieces) == [name for name, _ in calls]
    assert [piece.text for piece in pieces if isinstance(piece, PieceCallArguments)] == [text for _, text in calls]


def test_a_call_is_held_back_only_as_long_as_it_could_be_the_one_before() -> None:
    parser = plan().parser(lambda: "call_1")
    parser.feed(made_call("get_weather", PARIS, "default"))
    head = made_call("get_weather", "", "default").partition("}")[0]
    assert parser.feed(head + '{"city": "P') == []
    assert parser.feed("un") == [
        PieceCallStart("call_1", "get_weather", written=head),
        PieceCallArguments('{"city": "Pun'),
    ]
    assert parser.feed("o") == [PieceCallArguments("o")]


def test_a_call_again_that_is_cut_short_is_given_as_far_as_it_came() -> None:
    made = plan()
    text = made_call("get_weather", PARIS, "default")
    pieces, error = read(made, text, text[: text.index("ris")])
    assert names(pieces) == ["get_weather"] * 2
    assert error is not None


@pytest.mark.parametrize(
    "name", ["mcp.files/read", "server__tool", "a:b", "größe", "获取天气", "x" * 200, "ns@v1.2+a~b%c"]
)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_names_as_servers_of_tools_write_them_can_be_called(name: str, syntax: str) -> None:
    made = plan(ToolChoice("required"), tools=(Tool(name), ADD), syntax=SYNTAXES[syntax])
    assert made.constraint is not None
    text = made_call(name, "{}", syntax)
    assert Gbnf(made.constraint).accepts(text)
    assert names(read(made, text)[0]) == [name]
