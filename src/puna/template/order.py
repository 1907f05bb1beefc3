"""What a cell of the cage is asked, and how it answers. Pure.

An order is one of five jobs on one template, as `marshal` writes it: the cell runs the same Python, and it alone reads
that. An answer comes from a process that ran a stranger's program: it is a letter and a text or JSON of a known shape,
and whatever else it may be, it is only read as that.
"""

from __future__ import annotations

import json
import marshal
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from puna.errors import InvalidRequest, ModelFileError, PunaError, TemplateTooCostly, Unsupported
from puna.model.bounds import MAX_OUTPUT
from puna.template.facts import CallSyntax, TemplateFacts, ThinkTags
from puna.template.languages import TemplateKey
from puna.types import JsonObject, Level

Errand: TypeAlias = Literal["open", "read", "check", "render", "insert"]

HEAD = struct.Struct("<Q")
"""Before an order and before an answer: how many bytes it has."""

MAX_ANSWER = 4 * MAX_OUTPUT + 1
"""Bytes of an answer: more is none."""

_TEXT, _OPENED, _DONE = b"t", b"o", b"d"
_ERRORS: Mapping[bytes, type[PunaError]] = {
    b"i": InvalidRequest,
    b"u": Unsupported,
    b"m": ModelFileError,
    b"c": TemplateTooCostly,
}
_LETTERS = {kind: letter for letter, kind in _ERRORS.items()}


@dataclass(frozen=True, slots=True)
class Opened:
    """What is known of a template once it was compiled and tried, or read."""

    facts: TemplateFacts
    inserts: bool


CellAnswer: TypeAlias = "str | Opened | PunaError | None"


def pack_order(job: Errand, key: TemplateKey, arguments: Mapping[str, Any]) -> bytes:
    return marshal.dumps((job, key.language, key.source, key.bos, key.eos, dict(arguments)))


def read_order(data: bytes) -> tuple[Errand, TemplateKey, JsonObject]:
    job, language, source, bos, eos, arguments = marshal.loads(data)
    return job, TemplateKey(language, source, bos, eos), arguments


def pack_answer(answer: CellAnswer) -> bytes:
    match answer:
        case None:
            return _DONE
        case str():
            return _TEXT + answer.encode("utf-8", "surrogatepass")
        case Opened():
            return _OPENED + json.dumps(asdict(answer)).encode()
        case PunaError():
            told = {"message": answer.message, "param": answer.param}
            return _LETTERS[type(answer)] + json.dumps(told).encode()


def read_answer(data: bytes) -> CellAnswer:
    """ValueError if it is none."""
    letter, rest = data[:1], data[1:]
    if letter == _TEXT:
        return rest.decode("utf-8", "surrogatepass")
    if letter == _DONE:
        return None
    if letter == _OPENED:
        return _opened(json.loads(rest))
    if letter not in _ERRORS:
        raise ValueError(f"an answer that begins with {letter!r}")
    told = json.loads(rest)
    param = told["param"]
    return _ERRORS[letter](str(told["message"]), param=None if param is None else str(param))


def _opened(told: Any) -> Opened:
    """ValueError, TypeError or KeyError if it has another shape."""
    facts = dict(told["facts"])
    thinking, syntax, levels = facts.pop("thinking"), facts.pop("syntax"), list(facts.pop("levels"))
    if not set(levels) <= set(get_args(Level)):
        raise ValueError("a level that is none")
    if not all(isinstance(value, bool) for value in (*facts.values(), told["inserts"])):
        raise ValueError("a fact that is no boolean")
    return Opened(
        TemplateFacts(
            **facts,
            levels=tuple(levels),
            thinking=None if thinking is None else ThinkTags(str(thinking["open"]), str(thinking["close"])),
            syntax=None
            if syntax is None
            else CallSyntax(str(syntax["before"]), str(syntax["between"]), str(syntax["after"]), bool(syntax["array"])),
        ),
        told["inserts"],
    )
