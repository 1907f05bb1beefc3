"""Grammars of which texts can be read in many ways: refused at the door, or followed without holding the engine."""

from __future__ import annotations

from typing import Any

import httpx
import psutil
import pytest

from .conftest import Program

TOKENS = 8

HELD = 20.0
"""Seconds of a processor for so few tokens. What was let in before held llama.cpp for minutes."""


def chain(length: int, body: str) -> str:
    """Rules of which each is made of the next."""
    rules = (f"r{number} ::= {body.replace('NEXT', f'r{number + 1}')}" for number in range(length))
    return "\n".join(["root ::= r0", *rules, f'r{length} ::= "a"'])


CLOSE = {
    "told apart at the end": 'root ::= s\ns ::= "a" s "b" | "a" s "c" | "a"',
    "a tree": 'root ::= n\nn ::= "{L:" n ",a:1}" | "{L:" n ",b:1}" | "0"',
    "names that begin alike": "root ::= " + " | ".join(f'"aaaa-{number}"' for number in range(900)),
    "rules that begin alike": "\n".join(
        ['root ::= (r0 "!")+', *(f'r{n} ::= "a" r{n + 1} | "a" r{n + 1} "b"' for n in range(4)), "r4 ::= [a-b]{1,30}"]
    ),
    "words within words": 'root ::= (w | "(" root ")")+\nw ::= [a-z]{1,12} " "?',
    "optional upon optional": "root ::= " + '"a"? ' * 60 + '"b"',
    "one class upon another": "root ::= x{300}\nx ::= [a-b] | [a-c] | [a-d] | [a-e]",
    "rules that hold each other": chain(6, "NEXT | NEXT NEXT | NEXT NEXT NEXT"),
    "many that add one": chain(60, 'NEXT | "a" NEXT'),
}
"""What is let in with the most readings, or after it was written so that it has fewer."""

REFUSED = {
    "rows of rows": 'root ::= s\ns ::= "a" s s | "a"',
    "palindromes": 'root ::= p\np ::= "a" p "a" | "b" p "b" | "a" | "b"',
    "too many optional upon optional": "root ::= " + '"a"? ' * 500 + '"b"',
    "too many that add one": chain(90, 'NEXT | "a" NEXT'),
    "many that hold each other": chain(40, "NEXT | NEXT NEXT"),
    "very many that do": chain(90, "NEXT | NEXT NEXT NEXT"),
    "counts upon counts": "root ::= " + '"a"{0,50} ' * 10 + '"b"',
}


def ask(program: Program, grammar: str) -> httpx.Response:
    body = {"model": "smollm2", "prompt": "aaaa", "max_tokens": TOKENS, "temperature": 0, "grammar": grammar}
    return httpx.post(f"{program.url}/v1/completions", json=body, timeout=300)


def used(program: Program) -> float:
    """Seconds of a processor that the server and its runner have used."""
    processes = [psutil.Process(program.process.pid), *program.runners()]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


@pytest.mark.parametrize("name", CLOSE)
def test_what_is_let_in_does_not_hold_the_engine(program: Program, name: str) -> None:
    assert ask(program, 'root ::= "a"').status_code == 200  # the runner is there
    before = used(program)
    answer = ask(program, CLOSE[name])
    assert answer.status_code == 200, answer.text
    assert used(program) - before < HELD


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_hold_it_is_refused(program: Program, name: str) -> None:
    answer = ask(program, REFUSED[name])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_grammar")


_ROW: dict[str, Any] = {"$ref": "#/$defs/row"}
_ROWS = {
    "$defs": {"row": {"anyOf": [{"type": "array", "items": kind} for kind in (_ROW, {"anyOf": [_ROW, {"const": 1}]})]}},
    "type": "object",
    "properties": {"row": _ROW},
    "required": ["row"],
}


@pytest.mark.parametrize("strict", [False, True])
def test_a_tool_that_would_hold_it_is_loosened_by_name_or_refused(program: Program, strict: bool) -> None:
    tool = {"type": "function", "function": {"name": "rows", "parameters": _ROWS, "strict": strict}}
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "[[[[[[[["}],
        "tools": [tool],
        "tool_choice": {"type": "function", "function": {"name": "rows"}},
        "max_tokens": TOKENS,
    }
    before = used(program)
    answer = httpx.post(f"{program.url}/v1/chat/completions", json=body, timeout=300)
    assert used(program) - before < HELD
    if strict:
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tools[0].function.parameters")
    else:
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-puna-ignored"] == "tools[0].function.parameters"
