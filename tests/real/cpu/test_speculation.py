"""With guesses and without, alone and in company, a real model's answers are the same to the last bit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from puna.engine.runner import Feature, Runner

from .models import write_model
from .running import Answered, answer, started
from .test_families import RECIPES

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = (
    'Return this as it is: {"name": "Alice", "city": "Berlin", "languages": ["German", "English"], "age": 31, '
    '"street": "Main street 5", "mail": "alice@example.org", "friends": ["Bob", "Carol", "Dave"]}'
)
CHAT = f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n"

KINDS: dict[str, dict[str, Any]] = {
    "likeliest": {"temperature": 0.0},
    "sampled": {"temperature": 0.8},
    "wild": {"temperature": 1.5, "top_k": 0, "top_p": 1.0},
    "penalised": {"temperature": 0.5, "repeat_penalty": 1.2, "frequency_penalty": 0.2, "repeat_last_n": -1},
    "constrained": {
        "temperature": 0.8,
        "gbnf": r'root ::= "{" ("\"" [a-z]+ "\": \"" [A-Za-z0-9 ]+ "\"" ","? " "?)+ "}"',
    },
    "mirostat": {"mirostat": 2},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runners(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Runner, Runner]]:
    """Without guesses, and with."""
    store = tmp_path_factory.mktemp("store")
    async with (
        started(smollm2_gguf, store, speculation=False) as plain,
        started(smollm2_gguf, store) as guessing,
    ):
        yield plain, guessing


async def test_only_who_guesses_says_so(runners: tuple[Runner, Runner]) -> None:
    plain, guessing = runners
    assert guessing.info.features - plain.info.features == {Feature.PREDICTION}


def shown(answered: Answered) -> tuple[object, ...]:
    """Log-probabilities show a difference that changes no token."""
    return answered.tokens, answered.end.reason, answered.end.completion_tokens, answered.end.settings


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
async def test_answers_are_the_same(runners: tuple[Runner, Runner], kind: str) -> None:
    plain, guessing = runners
    prompt = await plain.tokenize(CHAT, special=True, bos=False)
    said = {"max_tokens": 60, "logprobs": 3, "ignore_eos": False, **KINDS[kind]}
    wanted = [await answer(plain, prompt, seed=seed, **said) for seed in range(3)]
    foretold = await plain.tokenize(TEXT.partition(": ")[2], special=False, bos=False)
    for prediction in ([], foretold, wanted[0].ids):
        together = await asyncio.gather(
            *(answer(guessing, prompt, seed=seed, prediction=prediction, **said) for seed in range(3))
        )
        assert [shown(one) for one in together] == [shown(one) for one in wanted]


@pytest.mark.parametrize("name", ["lfm2", "qwen35", "qwen35, linear attention last"])
async def test_what_was_guessed_wrongly_leaves_nothing(name: str, tmp_path: Path) -> None:
    """Models that do not attend in every layer, foretold their own answer up to a wrong token, over and over."""
    model = tmp_path / "model.gguf"
    write_model(model, RECIPES[name])
    prompt = [3 + 7 * place % 300 for place in range(45)]
    said = {"max_tokens": 60, "logprobs": 3, "temperature": 0.7}
    async with (
        started(model, tmp_path / "store", speculation=False) as plain,
        started(model, tmp_path / "store") as guessing,
    ):
        for seed in range(3):
            wanted = await answer(plain, prompt, seed=seed, **said)
            wrong = [token if place % 9 else 3 for place, token in enumerate(wanted.ids)]
            for prediction in (wanted.ids, wrong, [wrong[0]] * 50):
                got = await answer(guessing, prompt, seed=seed, prediction=prediction, **said)
                assert shown(got) == shown(wanted)


async def test_the_next_turn_finds_the_answer(
    runners: tuple[Runner, Runner], smollm2_gguf: Path, tmp_path: Path
) -> None:
    """And goes on as one that found nothing."""
    _, guessing = runners
    prompt = await guessing.tokenize(CHAT, special=True, bos=False)
    first = await answer(guessing, prompt, seed=9, max_tokens=80)
    turn = [*prompt, *first.ids, *await guessing.tokenize("\nAnd now?", special=False, bos=False)]
    found = await answer(guessing, turn, logprobs=3)
    assert found.end.cached_tokens == len(prompt) + 79
    async with started(smollm2_gguf, tmp_path, speculation=False) as anew:
        computed = await answer(anew, turn, logprobs=3)
    assert computed.end.cached_tokens == 0
    assert found.tokens == computed.tokens
