"""Grammars of schemas and tools in the engines that read them: llama.cpp on the real model, and the CPU engine's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from fakes.gbnf_reader import Gbnf
from fakes.schemas import ENFORCED
from puna.chat.calls import PieceCallStart, plan_calls
from puna.engine.llama.engine import LlamaEngine
from puna.engine.runner import Constraint, End, LoadOptions, ModelFiles, Prompt, Runner, Sampling, Token
from puna.grammar.around import after_thinking
from puna.grammar.schema import conforms, schema_to_gbnf
from puna.settings import Settings
from puna.template.facts import CallSyntax
from puna.types import Grammar, Tool, ToolChoice

TOOLS = (
    Tool("get_weather", "The weather of a city.", ENFORCED["closed"]),
    Tool("now"),
    Tool("run", "Runs code.", kind="custom"),
    Tool("pick", kind="custom", grammar=Grammar("lark", 'start: WORD ("," WORD)*\n%import common.WORD\n')),
)
SYNTAXES = {
    "default": None,
    "llama": CallSyntax('{"name": "', '", "parameters": ', "}"),
    "mistral": CallSyntax('[TOOL_CALLS] [{"name": "', '", "arguments": ', ', "id": "abcdef123"}]', array=True),
}
CHOICES = {"auto": ToolChoice(), "required": ToolChoice("required"), "named": ToolChoice("required", ("now",))}


def call_grammar(syntax: str, choice: str) -> str:
    found = SYNTAXES[syntax]
    plan = plan_calls(TOOLS, CHOICES[choice], parallel=True, native=found is not None, syntax=found, output=None)
    assert plan.constraint is not None
    return plan.constraint


@pytest.fixture
async def runner(smollm2_gguf: Path) -> AsyncIterator[Runner]:
    files = ModelFiles(smollm2_gguf, "0" * 64, "llama", "Q4_1", name="smollm2:135m")
    made = await LlamaEngine(Settings(models=Path("none"))).start(files, LoadOptions(num_ctx=1024, slots=4))
    yield made
    await made.close()


async def generate(runner: Runner, text: str, gbnf: str, *, max_tokens: int = 64) -> tuple[str, str]:
    """The answer's text, and why it ended."""
    ask = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    prompt = Prompt(tuple(await runner.tokenize(ask, special=True, bos=True)))
    data, reason = b"", ""
    async with aclosing(runner.generate(prompt, Sampling(max_tokens=max_tokens, seed=7), Constraint(gbnf))) as steps:  # type: ignore[type-var]
        async for step in steps:
            if isinstance(step, Token):
                data += step.data
            elif isinstance(step, End):
                reason = step.reason
    return data.decode("utf-8", "replace"), reason


@pytest.mark.timeout(300)
async def test_llama_cpp_reads_every_grammar_and_finished_answers_are_valid(runner: Runner) -> None:
    # Before anything is asked: an engine gives up a connection over which for seconds no request comes.
    grammars = {name: schema_to_gbnf(schema) for name, schema in ENFORCED.items()}

    async def check(number: int, name: str) -> bool:
        # One token shows that the grammar is read; every fourth answer is given the time to end.
        text, reason = await generate(runner, "Give me JSON.", grammars[name], max_tokens=1 if number % 4 else 40)
        if reason == "stop":
            assert conforms(text, ENFORCED[name]) is None, (name, text)
        return reason == "stop"

    finished = await asyncio.gather(*(check(number, name) for number, name in enumerate(ENFORCED)))
    assert sum(finished) > len(ENFORCED) // 8


@pytest.mark.timeout(300)
@pytest.mark.parametrize("syntax", SYNTAXES)
async def test_a_call_that_is_required_is_made(runner: Runner, syntax: str) -> None:
    found = SYNTAXES[syntax]
    plan = plan_calls(TOOLS, CHOICES["named"], parallel=False, native=found is not None, syntax=found, output=None)
    assert plan.constraint is not None
    text, reason = await generate(runner, "What is the time?", plan.constraint, max_tokens=120)
    parser = plan.parser()
    pieces = parser.feed(text) + parser.finish()
    assert [piece.name for piece in pieces if isinstance(piece, PieceCallStart)] == ["now"]
    assert reason == "length" or parser.parse_error is None


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["schemas", "calls", "thoughts"])
def test_the_cpu_engine_reads_the_same_texts(kind: str) -> None:
    """Each engine compiles grammars its own way: no text may be allowed by one and not by the other."""
    llguidance = pytest.importorskip("llguidance")
    from puna.engine.cpu.constraint import LIMITS
    from puna.engine.cpu.grammar import parse, to_lark

    grammars = {
        "schemas": [schema_to_gbnf(schema) for schema in ENFORCED.values()],
        "calls": [call_grammar(syntax, choice) for syntax in SYNTAXES for choice in CHOICES],
        "thoughts": [
            after_thinking(schema_to_gbnf({"type": "integer"}), opened, "</think>") for opened in (None, "<think>")
        ],
    }[kind]
    tokenizer = llguidance.LLTokenizer("byte")
    chance = random.Random(kind)
    for gbnf in grammars:
        lark = llguidance.LLMatcher.grammar_from_lark(to_lark(parse(gbnf)))
        fresh = llguidance.LLMatcher(tokenizer, lark, log_level=0, limits=LIMITS)
        grammar = Gbnf(gbnf)
        for _ in range(4):
            text = grammar.walk(chance, 60)
            assert _accepts(fresh, text), (gbnf, text)
            other = text[: chance.randint(0, len(text))] + chance.choice('x"}0 ')
            assert _accepts(fresh, other) == grammar.accepts(other), (gbnf, other)


def _accepts(fresh: object, text: str) -> bool:
    matcher = fresh.deep_copy()  # type: ignore[attr-defined]
    data = text.encode()
    return bool(matcher.try_consume_tokens(list(data)) == len(data) and matcher.is_accepting())
