"""The scripted engine keeps the Runner's contract, and its script's words."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import fields
from pathlib import Path
from typing import cast

import pytest

from fakes.waiting import turn
from puna.engine.runner import (
    Constraint,
    End,
    Feature,
    LoadOptions,
    ModelFiles,
    Prefilled,
    Prompt,
    Runner,
    Sampling,
    Token,
)
from puna.engine.scripted import Script, ScriptedEngine, ScriptError, split_text
from puna.errors import ContextLengthExceeded, InvalidRequest, LoadFailed, LoadTimeout, RunnerDied

PLAIN = Sampling(max_tokens=1000, seed=0)


async def start(script: object = None, *, name: str = "m:latest", slots: int = 2, num_ctx: int = 512) -> Runner:
    engine = ScriptedEngine(Script.parse(json.dumps(script or {})))
    return await engine.start(ModelFiles(Path("none"), "", "llama", "", name=name), LoadOptions(num_ctx, slots))


async def ask(
    runner: Runner, text: str = "Hi", sampling: Sampling = PLAIN, constraint: Constraint | None = None
) -> tuple[list[Token], End]:
    prompt = Prompt(tuple(await runner.tokenize(text, special=True, bos=True)))
    *before, end = [step async for step in runner.generate(prompt, sampling, constraint)]
    assert isinstance(end, End)
    tokens = before[1:]
    assert [type(step) for step in before[:1]] == [Prefilled] * bool(before)
    return cast("list[Token]", tokens), end


def text_of(tokens: list[Token]) -> str:
    return b"".join(token.data for token in tokens).decode()


def answering(**answer: object) -> object:
    return {"default": answer}


async def test_text_goes_out_word_by_word() -> None:
    tokens, end = await ask(await start(answering(text="Hello big world!")))
    assert [token.data for token in tokens] == [b"Hello", b" big", b" world", b"!"]
    assert (end.reason, end.completion_tokens, end.prompt_tokens) == ("stop", 4, 2)


async def test_ids_are_the_same_in_every_run_and_give_their_bytes_back() -> None:
    first, second = await start(answering(text="Hello 🙂")), await start(answering(text="Hello 🙂"))
    tokens, _ = await ask(first)
    assert tokens == (await ask(second))[0]
    assert (await first.detokenize([token.id for token in tokens])).decode() == "Hello 🙂"


async def test_a_character_may_be_split_over_tokens() -> None:
    tokens, _ = await ask(await start(answering(tokens=["a", [0xF0, 0x9F], [0x99, 0x82]])))
    assert [token.data for token in tokens] == [b"a", b"\xf0\x9f", b"\x99\x82"]


async def test_thinking_text_and_calls_go_out_in_this_order() -> None:
    calls = [{"name": "f", "arguments": {"x": 1}}]
    tokens, _ = await ask(await start(answering(thinking="Hm.", text="Yes.", tool_calls=calls)))
    call = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>\n'
    assert text_of(tokens) == "<think>\nHm.\n</think>\n\nYes." + call
    assert tokens[0].data == b"<think>"


async def test_rules_are_tried_in_order() -> None:
    script = {
        "rules": [
            {"when": {"model": "other*"}, "answer": {"text": "other"}},
            {"when": {"contains": "weather", "constrained": True}, "answer": {"text": "bound"}},
            {"when": {"pattern": "(?i)WEATHER"}, "answer": {"text": "free"}},
        ],
        "default": {"text": "default"},
    }
    runner = await start(script)
    assert text_of((await ask(runner, "the weather"))[0]) == "free"
    assert text_of((await ask(runner, "the weather", constraint=Constraint('root ::= "x"')))[0]) == "bound"
    assert text_of((await ask(runner, "nothing"))[0]) == "default"
    assert text_of((await ask(await start(script, name="other:1b")))[0]) == "other"


async def test_echoes() -> None:
    assert text_of((await ask(await start(answering(echo="prompt")), "<|im_start|>Hi 🙂"))[0]) == "Hi 🙂"
    sampling = Sampling(max_tokens=1000, seed=7, top_k=3, logit_bias=((5, 1.5),))
    said = json.loads(text_of((await ask(await start(answering(echo="sampling")), "x", sampling))[0]))
    assert (said["seed"], said["top_k"], said["logit_bias"]) == (7, 3, [[5, 1.5]])
    grammar = 'root ::= "a"'
    assert (
        text_of((await ask(await start(answering(echo="constraint")), "x", PLAIN, Constraint(grammar)))[0]) == grammar
    )


async def test_the_end_says_which_settings_were_used() -> None:
    _, end = await ask(await start(), "x", Sampling(max_tokens=3, seed=9), Constraint("g"))
    assert (end.settings["seed"], end.settings["max_tokens"], end.settings["grammar"]) == (9, 3, "g")


async def test_limits() -> None:
    runner = await start(answering(text="a b c"))
    tokens, end = await ask(runner, sampling=Sampling(max_tokens=2, seed=0))
    assert (len(tokens), end.reason) == (2, "length")
    tokens, end = await ask(runner, sampling=Sampling(max_tokens=3, seed=0))
    assert (len(tokens), end.reason) == (3, "stop")
    assert (await ask(await start(answering(text="a", finish="length"))))[1].reason == "length"
    assert (await ask(await start(answering(text=""))))[1].completion_tokens == 0


async def test_repeating_goes_on_until_the_context_is_full() -> None:
    tokens, end = await ask(await start(answering(text="a b", repeat=True), num_ctx=50))
    assert (len(tokens), end.reason) == (48, "length")
    tokens, end = await ask(
        await start(answering(text="a b")), sampling=Sampling(max_tokens=5, seed=0, ignore_eos=True)
    )
    assert (text_of(tokens), end.reason) == ("a ba ba", "length")


async def test_a_prompt_over_the_context_is_refused() -> None:
    with pytest.raises(ContextLengthExceeded) as error:
        await ask(await start(num_ctx=10), "0123456789")
    assert (error.value.tokens, error.value.limit) == (10, 10)


async def test_seeds_pick_of_choices() -> None:
    runner = await start(answering(choices=[{"text": "zero"}, {"text": "one"}]))
    assert [text_of((await ask(runner, sampling=Sampling(max_tokens=9, seed=i)))[0]) for i in range(3)] == [
        "zero",
        "one",
        "zero",
    ]


async def test_log_probabilities() -> None:
    runner = await start(answering(text="a b", logprobs=[-0.5]))
    tokens, _ = await ask(runner, sampling=Sampling(max_tokens=9, seed=0, logprobs=3))
    assert tokens[0].logprob == -0.5
    assert all(len(token.top) == 3 and token.top[0].token == token.id for token in tokens)
    assert all(token.logprob is None and token.top == () for token in (await ask(runner))[0])
    scores = await runner.score([1, 2, 3], top=2)
    assert [len(top) for _, top in scores] == [2, 2]


async def test_a_scripted_death_ends_every_answer() -> None:
    script = {
        "rules": [{"when": {"contains": "die"}, "answer": {"text": "a b c", "error": {"after": 2, "message": "boom"}}}],
        "default": {"text": "x ", "repeat": True, "delay": 60},
    }
    runner = await start(script)
    other = asyncio.create_task(ask(runner))
    stream = runner.generate(Prompt(tuple(b"die")), PLAIN)
    assert isinstance(await anext(stream), Prefilled)
    assert [cast("Token", await anext(stream)).data for _ in range(2)] == [b"a", b" b"]
    with pytest.raises(RunnerDied, match="boom"):
        await anext(stream)
    with pytest.raises(RunnerDied, match="boom"):
        await other
    assert await runner.died == "boom"
    with pytest.raises(RunnerDied):
        await runner.busy()


async def test_requests_over_the_slots_wait() -> None:
    runner = await start(answering(text="a ", repeat=True, delay=60), slots=2)
    requests = [asyncio.create_task(ask(runner)) for _ in range(3)]
    for _ in range(20):
        await turn()
    assert await runner.busy() == 2
    assert not any(request.done() for request in requests)
    for request in requests:
        request.cancel()
    await asyncio.wait(requests)
    assert await runner.busy() == 0


async def test_leaving_a_stream_frees_the_slot() -> None:
    runner = await start(answering(text="a ", repeat=True))
    async with aclosing(runner.generate(Prompt((1,)), PLAIN)) as stream:  # type: ignore[type-var]
        await anext(stream)
        assert await runner.busy() == 1
    assert await runner.busy() == 0


async def test_a_slot_remembers_what_it_answered() -> None:
    runner = await start(answering(text="b"))
    assert (await ask(runner, "a"))[1].cached_tokens == 0
    assert (await ask(runner, "a"))[1].cached_tokens == 0, "the last token is always computed"
    assert (await ask(runner, "abc"))[1].cached_tokens == 2
    assert (await ask(runner, "xyz"))[1].cached_tokens == 0


async def test_a_model_may_fail_to_load_and_lack_features() -> None:
    script = {"models": [{"match": "broken*", "load_error": "no luck"}, {"without": ["logprobs"], "bos": True}]}
    with pytest.raises(LoadFailed, match="no luck"):
        await start(script, name="broken:latest")
    runner = await start(script)
    assert Feature.LOGPROBS not in runner.info.features
    assert await runner.tokenize("a", special=True, bos=True) == [runner.info.bos, ord("a")]
    assert await runner.tokenize("a", special=True, bos=False) == [ord("a")]


async def test_special_text_is_one_token_only_when_allowed() -> None:
    runner = await start()
    assert len(await runner.tokenize("<|im_start|>", special=True, bos=False)) == 1
    assert bytes(await runner.tokenize("<|im_start|>", special=False, bos=False)) == b"<|im_start|>"
    with pytest.raises(InvalidRequest):
        await runner.detokenize([10**6])


async def test_embeddings_follow_from_the_tokens() -> None:
    runner = await start()
    assert await runner.embed([1, 2]) == await runner.embed([1, 2]) != await runner.embed([2, 1])
    assert len(await runner.embed([1])) == runner.info.embedding_length


def test_splitting_keeps_every_byte() -> None:
    text = "Hi  there,\n<think>x</think> ü🙂".encode()
    assert b"".join(split_text(text)) == text
    assert b"<think>" in split_text(text)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "script"),
        ('{"rules": [{"answer": {"txt": "a"}}]}', "rules.0.answer.txt"),
        ('{"rules": [{"when": {"pattern": "("}, "answer": {}}]}', "pattern"),
        ('{"default": {"text": "a", "echo": "prompt"}}', "one of text, tokens and echo"),
        ('{"default": {"tokens": [[256]]}}', "0 to 255"),
        ('{"models": [{"without": ["magic"]}]}', "magic"),
        ('{"default": {"delay": -1}}', "default.delay"),
    ],
)
def test_a_bad_script_says_where(text: str, where: str) -> None:
    with pytest.raises(ScriptError) as error:
        Script.parse(text)
    assert where in str(error.value)


def test_a_script_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="No such file"):
        Script.read(tmp_path / "none.json")


def test_the_settings_of_an_answer_are_all_that_decides_its_tokens() -> None:
    beside = {"max_tokens", "logprobs", "prefilled"}
    assert Sampling(max_tokens=1, seed=1).settings().keys() == {field.name for field in fields(Sampling)} - beside


async def test_a_load_without_a_sign_of_life_ends() -> None:
    script = Script.parse(json.dumps({"models": [{"match": "m*", "load_delay": 600}]}))
    engine = ScriptedEngine(script, load_timeout=0.01)
    with pytest.raises(LoadTimeout, match=r"no sign of life for 0\.01 seconds"):
        await engine.start(ModelFiles(Path("none"), "", "llama", "", name="m:latest"), LoadOptions(512, 1))
