"""What the fuzzing tries: for each language a way to make texts of it, and what has to hold for any of them.

A target raises what no user may see: anything but the errors that its part of Puna documents.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fakes.gguf_files import CHATML, gguf_bytes
from puna.engine.cpu.constraint import Grammars, TokenTable
from puna.errors import InvalidRequest, ModelFileError, PunaError
from puna.grammar.gbnf import GrammarTooLarge, Rules
from puna.grammar.schema import conforms, loose_json_value, schema_to_gbnf
from puna.grammar.written import grammar_to_gbnf
from puna.model.gguf import read_header
from puna.model.model import config_of
from puna.model.modelfile import decode_modelfile, parse_modelfile
from puna.template.cage import Cage
from puna.template.languages import TemplateKey
from puna.types import Grammar, JsonValue, Message, Tool, ToolCall

MOST_SECONDS = 20.0
"""Of a processor, for one text: work is bounded long before that."""

PIECES = TokenTable([b"<s>", b"</s>", *(bytes([byte]) for byte in range(256))], frozenset({0, 1}), (1,))


@dataclass(frozen=True)
class Target:
    """`made`: texts to try. `tried`: raises if what may happen to them does not."""

    made: st.SearchStrategy[Any]
    tried: Callable[[Any], None]
    close: Callable[[], None] = lambda: None


@contextmanager
def bounded() -> Iterator[None]:
    """It takes no more of a processor than it may."""
    begun = time.thread_time()
    yield
    assert time.thread_time() - begun < MOST_SECONDS


def words(*pieces: str, most: int = 40) -> st.SearchStrategy[str]:
    """Texts of these pieces in any order."""
    return st.lists(st.sampled_from(pieces) | st.text(max_size=2), max_size=most).map("".join)


def mutated(seeds: Sequence[str], *pieces: str) -> st.SearchStrategy[str]:
    """One of these texts with pieces of it taken out, doubled, or replaced."""

    @st.composite
    def build(draw: st.DrawFn) -> str:
        text = draw(st.sampled_from(seeds))
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(text)))
            end = min(len(text), at + draw(st.integers(0, 12)))
            put = draw(st.sampled_from(["", text[at:end] * draw(st.integers(1, 3)), *pieces]))
            text = text[:at] + put + text[end:]
        return text

    return build()


# ------------------------------------------------------------------------------------------------------- templates

JINJA = (
    "{{", "}}", "{%", "%}", "{#", "#}", "{%-", "-%}", " ", "messages", "message", "content", "tools", ".", "[0]",
    "[-1]", "['role']", "|", "tojson", "trim", "length", "join", "list", "sort", "map", "attribute='content'",
    "select", "default", "upper", "format", "indent", "replace", "items", "dictsort", "if", "else", "elif", "endif",
    "for", "endfor", "in", "set", "endset", "macro", "endmacro", "call", "m(", "namespace(", "range(",
    "raise_exception(", "strftime_now(", "(", ")", ",", "=", "==", "+", "-", "*", "**", "/", "//", "%", "~", "not",
    "and", "or", "is", "defined", "none", "true", "string", "mapping", "loop", ".index0", ".first", ".last", "'a'",
    '"b"', "1", "0", "2.5", "99999999999999999999", "[", "]", "{", "}", ":", "bos_token", "add_generation_prompt",
    "recursive", "loop(", "break", "continue", "generation", "endgeneration", "include", "extends", "block",
    "endblock", "filter", "endfilter", "\n", "é", "\\", "'", '"',
)  # fmt: skip
JINJA_SEEDS = [
    CHATML,
    "{% for m in messages %}{{ m['role'] + ': ' + m.content | trim }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% macro m(x, d=1) %}{{ x|tojson(indent=d) }}{% endmacro %}{% for t in tools %}{{ m(t.function) }}{% endfor %}",
    "{% set n = namespace(a='') %}{% for m in messages[::-1] %}{% set n.a = n.a ~ m.content %}{% endfor %}{{ n.a }}",
    "{{ raise_exception('no ' ~ messages|length) if messages|length > 9 else strftime_now('%d %b') }}",
]
GO = (
    "{{", "}}", "{{-", "-}}", " ", ".", ".Messages", ".Prompt", ".System", ".Response", ".Role", ".Content", ".Tools",
    ".ToolCalls", ".Function.Name", ".Function.Arguments", "range", "end", "if", "else", "else if", "with", "define",
    "template", "block", "break", "continue", "$", "$i", "$m", ":=", "=", ",", "|", "(", ")", "eq", "ne", "lt", "and",
    "or", "not", "len", "index", "slice", "printf", "print", "println", "json", "currentDate", "call", "html", "js",
    "urlquery", '"%v"', '"%q"', '"%d"', '"%x"', '"%[1]*d"', '"a"', "`b`", "'c'", "1", "0", "-1", "0x1p4", "1i", "nil",
    "true", "/*", "*/", "\n", "é", '"',
)  # fmt: skip
GO_SEEDS = [
    "{{ if .System }}<s>{{ .System }}{{ end }}{{ .Prompt }}|{{ .Response }}",
    '{{ range $i, $m := .Messages }}{{ if eq $m.Role "user" }}[{{ $m.Content }}]{{ else }}'
    "{{ json $m.ToolCalls }}{{ end }}{{ end }}",
    '{{ define "t" }}{{ range . }}{{ .Function.Name }}{{ end }}{{ end }}{{ template "t" .Tools }}{{ .Prompt }}',
    '{{ $a := index .Messages 0 }}{{ with $a }}{{ printf "%-10s|%v" .Role .Content }}{{ end }}{{ slice .Prompt 0 1 }}',
]  # fmt: skip
CHAT = [
    Message.of("system", "S"),
    Message.of("user", "Hi \"there\" <b>"),
    Message("assistant", (), tool_calls=(ToolCall("abcdef123", "f", '{"a": [1, 2.5, null]}'),)),
    Message("tool", Message.of("user", "42").content, tool_call_id="abcdef123", name="f"),
]  # fmt: skip


def template(language: str, made: st.SearchStrategy[str]) -> Target:
    cage = Cage()

    def tried(source: str) -> None:
        key = TemplateKey("go" if language == "go" else "jinja", source)
        for opened in (cage.read, cage.open):
            with suppress(InvalidRequest, ModelFileError):
                found = opened(key)
                found.render(CHAT, tools=[Tool("f", "what it does", {"type": "object", "properties": {}})])
            with suppress(InvalidRequest, ModelFileError):
                if (found := opened(key)).inserts:
                    found.insert("a", "b")

    return Target(made, tried, cage.close)


# -------------------------------------------------------------------------------------------------------- grammars

GBNF = (
    "root", " ::= ", "\n", " ", "|", "(", ")", "*", "+", "?", "{2}", "{0,3}", "{2,}", "{,3}", "{20000}", '"a"',
    '"ab"', '""', '"\\x41"', '"\\u00e9"', '"\\', "[a-z]", "[^a]", "[]", "[^]", "[\\]-]", ".", "s", "t", "a-b", "#",
    "<think>", "\r\n", "::=",
)  # fmt: skip
GBNF_SEEDS = [
    'root ::= s | t "a"\ns ::= "(" s ")" | [a-z]+\nt ::= s ("," s)*\n',
    'root ::= "a"{1,3} ("b" | "c"?)* [^"\\\\]\n# x\n',
    'root ::= s\ns ::= "a" s "b" | "a" s "c" | t\nt ::= [0-9]{2,4} | "x" root\n',
]
LARK = (
    "start", ": ", "\n", " ", "|", "(", ")", "[", "]", "*", "+", "?", "~2", "~1..3", '"a"', '"b"i', "/a+/",
    "/[a-z]*/", "/(/", "A", "B", "x", "y", "->", " z", "%import", " common.INT", "%ignore", "//", "!", ".2", "%",
    "\n  | ", '"\\', "..",
)  # fmt: skip
LARK_SEEDS = [
    'start: pair ("," pair)*\npair: KEY "=" INT\nKEY: /[a-z]+/\n%import common.INT\n',
    'start: "(" start ")" | x~1..3\nx: A | "b"\nA: "a".."f"\n',
]
REGEX = (
    "a", "b", "[a-z]", "[^a]", ".", "*", "+", "?", "{2}", "{1,3}", "{,}", "{99999}", "(", "(?:", "(?=", "(?!", "(?<=",
    "(?<a>", "(?i)", ")", "|", "^", "$", "\\d", "\\w", "\\b", "\\1", "\\p{L}", "\\u00e9", "\\", "\\x4", "[", "]", "-",
    "*?", "++", "é", "/", "\\cA",
)  # fmt: skip


def grammar(syntax: Any) -> Callable[[str], None]:
    grammars = Grammars(PIECES)

    def tried(text: str) -> None:
        with suppress(InvalidRequest):
            walked(grammars, grammar_to_gbnf(Grammar(syntax, text), param="grammar"))

    return tried


def walked(grammars: Grammars, gbnf: str) -> None:
    """What was made is a grammar to the constraint library, and leads on until it ends."""
    matcher = grammars.matcher(gbnf)
    chance = random.Random(len(gbnf))
    for _ in range(30):
        ways = [token for token, allowed in enumerate(matcher.mask().allowed()) if allowed]
        assert ways
        token = chance.choice(ways)
        if token == 1 or matcher.accept(token):
            return


KEYS = (
    "type", "properties", "required", "items", "prefixItems", "anyOf", "oneOf", "allOf", "not", "enum", "const",
    "$ref", "$defs", "additionalProperties", "patternProperties", "propertyNames", "minLength", "maxLength",
    "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "multipleOf", "minItems", "maxItems",
    "uniqueItems", "contains", "minProperties", "maxProperties", "dependentRequired", "if", "then", "else", "title",
    "description", "default", "a", "b",
)  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers(-3, 9) | st.integers() | st.floats() | st.text(max_size=4)
    | st.sampled_from(["object", "array", "string", "number", "integer", "#", "#/$defs/a", "date", "email"])
    | words(*REGEX, most=6)
)  # fmt: skip
NAMES = st.sampled_from(KEYS)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=25,
)


def plain(kind: str, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"type": st.just(kind)}, optional=more)


COUNT = st.integers(0, 4)
VALID = st.recursive(
    st.sampled_from([{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}, {"const": 1}, {"enum": ["a", "ab", 1]}, True, {}])
    | plain("string", minLength=COUNT, maxLength=COUNT, pattern=words(*REGEX, most=5))
    | plain("integer", minimum=st.integers(-99, 99), maximum=st.integers(-99, 99), multipleOf=st.integers(1, 7)),
    lambda inner: (
        plain("array", items=inner, minItems=COUNT, maxItems=COUNT)
        | plain(
            "object",
            properties=st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            required=st.lists(st.sampled_from("abc"), max_size=2, unique=True),
            additionalProperties=inner | st.booleans(),
        )
        | st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options})
        | st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"allOf": parts})
    ),
    max_leaves=12,
)
TREES = st.tuples(VALID, VALID, VALID).map(
    lambda three: {"$defs": {"a": three[0], "b": three[1]}, **(three[2] if isinstance(three[2], dict) else {})}
)


def schema() -> Callable[[object], None]:
    grammars = Grammars(PIECES)

    def checked(value: JsonValue) -> None:
        for text in ("{}", '{"a": [1, "b"]}', "1e400", "nul"):
            conforms(text, value)

    def tried(value: Any) -> None:
        with suppress(InvalidRequest):
            walked(grammars, schema_to_gbnf(value))
            checked(value)
        with suppress(InvalidRequest, GrammarTooLarge):
            checked(loose_json_value(Rules(), value, param="tools[0].parameters", types=frozenset({"object"})).schema)

    return tried


# ------------------------------------------------------------------------------------------------- files and bodies

SOUND = gguf_bytes(
    tokens=["a", "b"],
    chat_template=CHATML,
    metadata={
        "llama.block_count": 2, "llama.context_length": 64, "llama.embedding_length": 8,
        "llama.attention.head_count": 2,
        "tokenizer.ggml.bos_token_id": 0, "general.name": "n", "llama.rope.scaling.factor": 1.5,
    },
)  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A header with some bytes changed."""
    data = bytearray(SOUND)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(4, len(data) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                data[at : at + 8] = draw(st.sampled_from([2**63, 2**64 - 1, 2**32, 0, 1, 9])).to_bytes(8, "little")
            case 2:
                data[at:at] = draw(st.binary(max_size=9))
            case _:
                del data[at : at + draw(st.integers(1, 40))]
    return bytes(data)


def header(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(data)
        file.flush()
        for arrays in (False, True):
            with suppress(ModelFileError):
                found = read_header(Path(file.name), arrays=arrays)
                config_of(found)
                json.dumps([found.chat_template, found.bos_token, found.eos_token, found.architecture])


MODELFILE = (
    "FROM ", "PARAMETER ", "TEMPLATE ", "SYSTEM ", "MESSAGE ", "LICENSE ", "ADAPTER ", "REQUIRES ", "RENDERER ",
    "PARSER ", "DRAFT ", "x", "./a.gguf", "temperature 1", "stop ", "num_ctx 99999999999999999999", "user ", '"',
    '"""', "'", "\n", "\r\n", "\\", "#", "\t", "é", "\ufeff", "\0", "seed -1", "top_p nan", "1e400", "true", "from",
    "assistant Hi",
)  # fmt: skip


def modelfile(text: str) -> None:
    for encoding in ("utf-8", "utf-16"):
        with suppress(PunaError):
            parse_modelfile(decode_modelfile(text.encode(encoding, "surrogatepass")))


TARGETS: dict[str, Callable[[], Target]] = {
    "jinja": lambda: template("jinja", words(*JINJA) | mutated(JINJA_SEEDS, *JINJA)),
    "go": lambda: template("go", words(*GO) | mutated(GO_SEEDS, *GO)),
    "gbnf": lambda: Target(words(*GBNF) | mutated(GBNF_SEEDS, *GBNF), grammar("gbnf")),
    "lark": lambda: Target(words(*LARK) | mutated(LARK_SEEDS, *LARK), grammar("lark")),
    "regex": lambda: Target(words(*REGEX, most=20), grammar("regex")),
    "schema": lambda: Target(SCHEMAS | TREES, schema()),
    "header": lambda: Target(files(), header),
    "modelfile": lambda: Target(words(*MODELFILE), modelfile),
}
