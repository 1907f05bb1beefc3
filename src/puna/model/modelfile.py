"""Modelfile: the text that says how a model is made, parsed and printed. Pure.

Lexing and quoting are Ollama's, so that a file means the same to both. Paths and names stay as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from puna.errors import InvalidRequest
from puna.model.parameters import OBSOLETE, parse_parameter
from puna.types import JsonObject, Message

MAX_MODELFILE_BYTES = 16 * 1024 * 1024

Instruction = Literal[
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
]
_INSTRUCTIONS: tuple[Instruction, ...] = get_args(Instruction)
_COMMANDS = ", ".join(f'"{word}"' for word in _INSTRUCTIONS[:-1]) + ', or "requires"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Modelfile:
    """What the instructions add up to. `parameters`: JSON values; `obsolete`: names of PARAMETERs without effect."""

    from_: tuple[str, ...] = ()
    adapter: str | None = None
    drafts: tuple[str, ...] = ()
    template: str | None = None
    system: str | None = None
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    parameters: JsonObject = field(default_factory=dict)
    obsolete: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()


def decode_modelfile(data: bytes) -> str:
    """Text by its byte order mark (UTF-8, UTF-16); UTF-8 without one. InvalidRequest when it is not text."""
    if len(data) > MAX_MODELFILE_BYTES:
        raise InvalidRequest(f"a Modelfile of more than {MAX_MODELFILE_BYTES} bytes")
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the Modelfile is not text: {error}") from error


def parse_modelfile(text: str) -> Modelfile:
    """InvalidRequest tells the line, or the parameter, that is wrong."""
    modelfile = Modelfile()
    for word, argument in _instructions(text):
        modelfile = _with(modelfile, word, argument)
    if not modelfile.from_:
        raise InvalidRequest("no FROM line", param="from")
    return modelfile


def render_modelfile(modelfile: Modelfile, *, comment: str = "") -> str:
    """Text that parses to the same again. `comment`: lines put before it, each with its own '#'."""
    lines = [f"FROM {item}" for item in modelfile.from_]
    single = {
        "ADAPTER": modelfile.adapter,
        "TEMPLATE": modelfile.template,
        "SYSTEM": modelfile.system,
        "RENDERER": modelfile.renderer,
        "PARSER": modelfile.parser,
        "REQUIRES": modelfile.requires,
    }
    lines += [f"{word} {_quoted(value)}" for word, value in single.items() if value is not None]
    lines += [f"DRAFT {item}" for item in modelfile.drafts]
    for name, value in modelfile.parameters.items():
        for item in value if isinstance(value, list) else [value]:
            lines.append(f"PARAMETER {name} {_quoted(_plain(item))}")
    lines += [f"LICENSE {_quoted(item)}" for item in modelfile.licenses]
    lines += [f"MESSAGE {message.role} {_quoted(message.text)}" for message in modelfile.messages]
    return comment + "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------------ meaning


def _with(modelfile: Modelfile, word: Instruction, argument: str) -> Modelfile:
    match word:
        case "from":
            return replace(modelfile, from_=(*modelfile.from_, argument))
        case "draft":
            return replace(modelfile, drafts=(*modelfile.drafts, argument))
        case "license":
            return replace(modelfile, licenses=(*modelfile.licenses, argument))
        case "message":
            role, _, text = argument.partition(" ")
            return replace(modelfile, messages=(*modelfile.messages, _message(role, text)))
        case "parameter":
            name, _, value = argument.partition(" ")
            return _with_parameter(modelfile, name.lower(), value)
        case "requires":
            return replace(modelfile, requires=parse_requires(argument))
        case "adapter":
            return replace(modelfile, adapter=argument)
        case "template":
            return replace(modelfile, template=argument)
        case "system":
            return replace(modelfile, system=argument)
        case "renderer":
            return replace(modelfile, renderer=argument)
        case "parser":
            return replace(modelfile, parser=argument)


_SEMVER = re.compile(r"v?(\d+(?:\.\d+){0,2}(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?)")


def parse_requires(text: str) -> str:
    """A version without its 'v'. InvalidRequest when it is none."""
    match = _SEMVER.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest("requires must be a valid semver (e.g. 0.14.0)", param="requires")
    return match[1]


def _message(role: str, text: str) -> Message:
    match role:
        case "system" | "user" | "assistant":
            return Message.of(role, text)
        case _:
            raise InvalidRequest('message role must be one of "system", "user", or "assistant"', param="messages")


def _with_parameter(modelfile: Modelfile, name: str, text: str) -> Modelfile:
    if name in OBSOLETE:
        return replace(modelfile, obsolete=(*modelfile.obsolete, name))
    value, before = parse_parameter(name, text), modelfile.parameters.get(name)
    if isinstance(value, list) and isinstance(before, list):
        value = before + value
    return replace(modelfile, parameters=modelfile.parameters | {name: value})


# ------------------------------------------------------------------------------------------------------------- lexing

_BLANK = " \t"
_NEWLINE = "\r\n"
_ROLES = ("system", "user", "assistant")


def _instructions(text: str) -> Iterator[tuple[Instruction, str]]:
    """Each instruction with its argument; a PARAMETER's and a MESSAGE's begin with one word and one space."""
    at = 0
    while True:
        at = _skip(text, at, _BLANK + _NEWLINE)
        if at >= len(text):
            return
        if text[at] == "#":
            at = _line_end(text, at)
            continue
        word, at = _word(text, at)
        prefix = ""
        if word in {"parameter", "message"}:
            prefix, at = _first_word(text, at)
            if word == "message" and prefix not in _ROLES:
                raise _wrong(text, at, 'message role must be one of "system", "user", or "assistant"')
            prefix += " "
        argument, at = _argument(text, at)
        if not argument and not prefix and text[at - 1 : at] != '"':
            raise InvalidRequest(f"unexpected EOF: {word.upper()} has no argument", param=word)
        if prefix and not argument and text[at - 1 : at] != '"':
            raise InvalidRequest(f"unexpected EOF: {word.upper()} {prefix.strip()} has no value", param=word)
        yield word, prefix + argument


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _line_end(text: str, at: int) -> int:
    ends = [end for end in (text.find(newline, at) for newline in _NEWLINE) if end >= 0]
    return min(ends, default=len(text))


def _word(text: str, at: int) -> tuple[Instruction, int]:
    end = at
    while end < len(text) and text[end].isalpha():
        end += 1
    word = next((item for item in _INSTRUCTIONS if item == text[at:end].lower()), None)
    if word is None or (end < len(text) and text[end] not in _BLANK + _NEWLINE):
        raise _wrong(text, at, f"command must be one of {_COMMANDS}")
    return word, end


def _first_word(text: str, at: int) -> tuple[str, int]:
    start = _skip(text, at, _BLANK)
    end = start
    while end < len(text) and text[end] not in _BLANK + _NEWLINE:
        end += 1
    if start == end:
        raise InvalidRequest("unexpected EOF: PARAMETER and MESSAGE need a name and a value", param="parameter")
    return text[start:end], end


def _argument(text: str, at: int) -> tuple[str, int]:
    start = _skip(text, at, _BLANK)
    quote = '"""' if text.startswith('"""', start) else '"' if text.startswith('"', start) else ""
    end = _line_end(text, start)
    while quote:
        value = text[start:end].rstrip()
        if len(value) >= 2 * len(quote) and value.endswith(quote):
            return _printable(value[len(quote) : -len(quote)]), start + len(value)
        if end >= len(text):
            raise InvalidRequest(f"unexpected EOF: a text that begins with {quote} does not end", param="modelfile")
        end = _line_end(text, end + 1)
    return _printable(text[start:end].strip()), end


def _printable(value: str) -> str:
    return "".join(letter for letter in value if letter.isprintable() or letter in "\t\r\n")


def _wrong(text: str, at: int, message: str) -> InvalidRequest:
    line = 1 + sum(text.count(newline, 0, at) for newline in _NEWLINE)
    return InvalidRequest(f"(line {line}): {message}", param="modelfile")


# ----------------------------------------------------------------------------------------------------------- printing


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(value: str) -> str:
    """As it is, unless its line or its spaces would not survive that."""
    if value and value == value.strip() and "\n" not in value and "\r" not in value and not value.startswith('"'):
        return value
    return f'"""{value}"""' if '"' in value else f'"{value}"'
