"""The llama engine on the real model: tokens, settings, log-probabilities, half characters, cancellation."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import cast

import psutil
import pytest
import pytest_asyncio

from fakes.gguf_files import FOREIGN_TEMPLATES, write_tiny_llama
from fakes.runners import Start, starting
from fakes.waiting import idle_within
from puna.chat.text import TextStream
from puna.engine.llama.client import LlamaRunner
from puna.engine.llama.options import WAITING
from puna.engine.runner import Constraint, End, Feature, Prefilled, Prompt, Runner, Sampling, Step, Token
from puna.errors import ContextLengthExceeded, InvalidRequest
from puna.inference.choice import Choice
from puna.inference.controls import control_bytes
from puna.types import TextDelta

EMOJI = "<|im_start|>user\nRepeat these: 🙂🦄 日本<|im_end|>\n<|im_start|>assistant\n🙂"
GREEDY = Sampling(max_tokens=12, seed=1, temperature=0.0)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(smollm2_gguf: Path) -> AsyncIterator[Runner]:
    """One for all: each test leaves it idle."""
    async with starting(smollm2_gguf) as start:
        yield await start()


@pytest_asyncio.fixture(loop_scope="module")
async def start(smollm2_gguf: Path) -> AsyncIterator[Start]:
    async with starting(smollm2_gguf) as start:
        yield start


async def prompt(runner: Runner, text: str) -> Prompt:
    return Prompt(tuple(await runner.tokenize(text, special=True, bos=True)))


def chat(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def steps(runner: Runner, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Step, None]:
    return cast("AsyncGenerator[Step, None]", runner.generate(prompt, sampling))


async def answer(
    runner: Runner, text: str | Prompt, sampling: Sampling, constraint: Constraint | None = None
) -> tuple[list[Token], End]:
    asked = text if isinstance(text, Prompt) else await prompt(runner, text)
    prefilled, *tokens, end = [step async for step in runner.generate(asked, sampling, constraint)]
    assert isinstance(prefilled, Prefilled)
    assert isinstance(end, End)
    assert (prefilled.prompt_tokens, prefilled.cached_tokens) == (end.prompt_tokens, end.cached_tokens)
    assert all(isinstance(token, Token) for token in tokens)
    return cast("list[Token]", tokens), end


def text_of(tokens: list[Token]) -> str:
    return b"".join(token.data for token in tokens).decode()


async def test_it_says_what_it_is(runner: Runner) -> None:
    info = runner.info
    assert (info.engine, info.num_ctx, info.slots, info.vocabulary) == ("llama", 1024, 4, 49152)
    assert (info.bos, info.add_bos, info.embedding_length, info.seed_exact) == (1, False, 576, True)
    assert 2 in info.eos
    assert info.pid is not None
    assert {Feature.CONSTRAINT, Feature.LOGPROBS, Feature.SCORE} <= info.features
    assert Feature.EMBED not in info.features


async def test_text_and_ids(runner: Runner) -> None:
    ids = await runner.tokenize(EMOJI, special=True, bos=True)
    assert ids[:3] == [1, 4093, 198]
    assert (await runner.detokenize(ids)).decode() == EMOJI
    assert 1 not in await runner.tokenize("<|im_start|>", special=False, bos=True)
    # Each token's own bytes, also of those that hold a part of a character.
    assert b"".join([await runner.detokenize([id_]) for id_ in ids]).decode() == EMOJI
    with pytest.raises(InvalidRequest) as refusal:
        await runner.detokenize([49152])
    assert refusal.value.param == "tokens"


async def test_every_token_has_its_id_and_bytes(runner: Runner) -> None:
    tokens, end = await answer(runner, EMOJI, GREEDY)
    assert len(tokens) == end.completion_tokens == 12
    assert end.reason == "length"
    assert [await runner.detokenize([token.id]) for token in tokens] == [token.data for token in tokens]
    assert any(len(token.data) == 1 and token.data[0] >= 0x80 for token in tokens), "no half character came up"
    assert end.prompt_tokens == len((await prompt(runner, EMOJI)).tokens)


async def test_an_answer_cut_inside_a_character_has_all_its_tokens(runner: Runner) -> None:
    whole, _ = await answer(runner, EMOJI, GREEDY)
    for limit in range(1, 12):
        tokens, end = await answer(runner, EMOJI, Sampling(max_tokens=limit, seed=1, temperature=0.0))
        assert [token.id for token in tokens] == [token.id for token in whole[:limit]]
        assert end.completion_tokens == limit


async def test_log_probabilities_of_every_token(runner: Runner) -> None:
    plain, _ = await answer(runner, EMOJI, GREEDY)
    tokens, _ = await answer(runner, EMOJI, Sampling(max_tokens=12, seed=1, temperature=0.0, logprobs=3))
    assert [(token.id, token.data) for token in tokens] == [(token.id, token.data) for token in plain]
    for token in tokens:
        assert token.logprob is not None
        assert len(token.top) == 3
        # Greedy: the chosen one is the likeliest.
        assert token.top[0].token == token.id
        assert token.top[0].logprob == pytest.approx(token.logprob, abs=1e-3)
        assert sum(math.exp(candidate.logprob) for candidate in token.top) <= 1.001


async def test_a_chosen_token_outside_the_top_has_its_own_probability(runner: Runner) -> None:
    text = "The sea is"
    hot = Sampling(max_tokens=1, seed=3, temperature=5.0, top_k=0, top_p=1.0, logprobs=1)
    [token], _ = await answer(runner, text, hot)
    assert token.logprob is not None
    assert token.top[0].token != token.id
    asked = await prompt(runner, text)
    [*_, (scored, _)] = await runner.score([*asked.tokens, token.id], top=1)
    assert token.logprob == pytest.approx(scored, abs=1e-3)


async def test_what_may_follow_is_weighed_as_it_would_be_scored(runner: Runner) -> None:
    """Also tokens that are parts of characters, and such as nobody would write here."""
    asked = await prompt(runner, "The sea is")
    following = [*await runner.tokenize(" blue cold \N{UNICORN FACE}", special=False, bos=False)]
    weights = await runner.weigh(asked.tokens, following)
    scored = [(await runner.score([*asked.tokens, token], top=0))[-1][0] for token in following]
    assert weights.logprobs == pytest.approx(scored, abs=1e-3)
    assert (await runner.weigh(asked.tokens, following[:1])).cached == len(asked.tokens) - 1


async def test_scores_are_those_of_generation(runner: Runner) -> None:
    asked = await prompt(runner, EMOJI)
    tokens, _ = await answer(runner, asked, Sampling(max_tokens=8, seed=1, temperature=0.0, logprobs=2))
    ids = [token.id for token in tokens]
    scores = await runner.score([*asked.tokens, *ids], top=2)
    assert len(scores) == len(asked.tokens) + len(ids) - 1
    for token, (logprob, top) in zip(tokens, scores[-len(ids) :], strict=True):
        assert logprob == pytest.approx(token.logprob, abs=1e-2)
        assert [candidate.token for candidate in top] == [candidate.token for candidate in token.top]


async def test_the_end_token_is_not_given(runner: Runner) -> None:
    one_word = Constraint('root ::= "zebra"')
    tokens, end = await answer(runner, "Hello", Sampling(max_tokens=30, seed=1, temperature=0.0), one_word)
    assert text_of(tokens) == "zebra"
    assert end.reason == "stop"
    assert end.completion_tokens == len(tokens)
    assert not set(runner.info.eos) & {token.id for token in tokens}


async def test_the_end_may_be_ignored(runner: Runner) -> None:
    # The model would end at once: it has nothing to add to an answer that is over.
    over = chat("Say ok.") + "Ok.<|im_end|>\n<|im_start|>assistant\n"
    tokens, end = await answer(runner, over, Sampling(max_tokens=9, seed=1, temperature=0.0, ignore_eos=True))
    assert (end.reason, len(tokens)) == ("length", 9)
    assert not set(runner.info.eos) & {token.id for token in tokens}


async def test_every_setting_reaches_the_engine(runner: Runner) -> None:
    sampling = Sampling(
        max_tokens=3, seed=7, temperature=0.7, top_k=11, top_p=0.55, min_p=0.03, typical_p=0.9, repeat_last_n=17,
        repeat_penalty=1.25, presence_penalty=0.5, frequency_penalty=0.25, mirostat=2, mirostat_tau=4.5,
        mirostat_eta=0.2, logit_bias=((100, 2.5),), logprobs=4,
    )  # fmt: skip
    _, end = await answer(runner, "Hello", sampling, Constraint('root ::= "a" | "b"'))
    used = end.settings
    expected = {
        "n_predict": 3, "seed": 7, "temperature": 0.7, "top_k": 11, "top_p": 0.55, "min_p": 0.03, "typical_p": 0.9,
        "repeat_last_n": 17, "repeat_penalty": 1.25, "presence_penalty": 0.5, "frequency_penalty": 0.25, "mirostat": 2,
        "mirostat_tau": 4.5, "mirostat_eta": 0.2, "n_probs": 4, "dry_multiplier": 0.0, "xtc_probability": 0.0,
    }  # fmt: skip
    assert {name: used[name] for name in expected} == pytest.approx(expected)
    assert used["samplers"] == ["penalties", "top_k", "typ_p", "top_p", "min_p", "temperature"]
    assert used["grammar"] == 'root ::= "a" | "b"'
    assert used["logit_bias"] == [{"token": 100, "bias": 2.5}]
    assert used["stop"] == []


async def test_a_constraint_holds_and_a_bad_one_is_refused(runner: Runner) -> None:
    tokens, end = await answer(runner, "Hello", GREEDY, Constraint('root ::= "zebra" | "yak"'))
    assert text_of(tokens) in {"zebra", "yak"}
    assert end.reason == "stop"
    with pytest.raises(InvalidRequest, match="grammar"):
        await answer(runner, "Hello", GREEDY, Constraint("root ::= nowhere"))


@pytest.mark.parametrize("again", [True, False])
async def test_a_grammar_has_counted_the_characters_that_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Also where what is no text cannot be told byte by byte, since another try went otherwise."""

    async def otherwise(*_: object) -> None:
        return None

    if not again:
        monkeypatch.setattr(LlamaRunner, "replay", otherwise)
    async with starting(write_tiny_llama(tmp_path / "bytes.gguf", context_length=512)) as start:
        runner = await start()
        broken = 0
        for seed in range(40):
            sampling = Sampling(max_tokens=100, seed=seed, temperature=1.0)
            tokens, _ = await answer(runner, Prompt((1, 2, 3)), sampling, Constraint('root ::= [^"]{12}'))
            read = TextStream(held=True).decode(b"".join(token.data for token in tokens), True)
            assert len(read) == 12, read
            broken += "\N{REPLACEMENT CHARACTER}" in read
    assert broken


async def test_a_bias_forbids_a_token(runner: Runner) -> None:
    [first, *_], _ = await answer(runner, "The sea is", GREEDY)
    banned = Sampling(max_tokens=12, seed=1, temperature=0.0, logit_bias=((first.id, -100.0),))
    assert first.id not in {token.id for token in (await answer(runner, "The sea is", banned))[0]}


async def test_the_context_is_what_was_asked_for(start: Start) -> None:
    runner = await start(num_ctx=40, slots=2)
    tokens, end = await answer(runner, "One two three", Sampling(max_tokens=500, seed=1, ignore_eos=True))
    assert end.reason == "length"
    assert end.prompt_tokens + len(tokens) == 40
    with pytest.raises(ContextLengthExceeded) as error:
        await answer(runner, "word " * 60, GREEDY)
    assert error.value.limit == 40


async def test_more_requests_than_slots_wait_and_all_are_answered(start: Start) -> None:
    runner = await start(slots=2)
    answers = await asyncio.gather(*(answer(runner, f"Count {i}:", GREEDY) for i in range(12)))
    assert all(len(tokens) == end.completion_tokens for tokens, end in answers)
    assert await runner.busy() == 0


async def test_an_answer_that_was_read_to_its_end_holds_no_place(start: Start) -> None:
    """Though nobody closes its generator: more of them than there are places, those that wait counted."""
    runner = await start(slots=1)
    asked, kept = await prompt(runner, "Count:"), []
    for _ in range(2 * (runner.info.slots + WAITING)):
        answering = runner.generate(asked, GREEDY)
        kept.append(answering)
        while not isinstance(await asyncio.wait_for(anext(answering), 60), End):
            pass
    assert len({id(answering) for answering in kept}) == len(kept)


def worked(runner: Runner) -> float:
    """Seconds of a processor that its process has used."""
    used = psutil.Process(runner.info.pid).cpu_times()
    return used.user + used.system


async def test_leaving_a_stream_frees_the_slot(runner: Runner) -> None:
    forever = Sampling(max_tokens=900, seed=1, ignore_eos=True)
    async with aclosing(steps(runner, await prompt(runner, "Once"), forever)) as stream:
        async for _ in stream:
            break
        assert await runner.busy() == 1
        before = worked(runner)
    assert await idle_within(runner.busy, 30)
    assert worked(runner) - before < 2.0, "the answer would take longer"


async def test_work_that_nobody_waits_for_is_told_beside_what_somebody_does(runner: Runner) -> None:
    """As a cancel leaves it that is not obeyed: the engine works on what this side knows nothing of."""
    assert isinstance(runner, LlamaRunner)
    forever = Sampling(max_tokens=900, seed=1, ignore_eos=True)
    asked = await prompt(runner, "Once")
    async with aclosing(steps(runner, asked, forever)) as stream:
        await anext(stream)
        assert not await runner.strays()
        body = {"prompt": list(asked.tokens), "n_predict": 900, "ignore_eos": True, "stream": True}
        async with runner._socket.open("POST", "/completion", body) as exchange:
            assert await exchange.read()
            (stray,) = await runner.strays()
            assert await runner.strays() == {stray}
            # Whoever comes meanwhile is not taken for it, nor does he hide it.
            async with aclosing(steps(runner, asked, forever)) as another:
                await anext(another)
                assert await runner.strays() == {stray}

        async def strays() -> int:
            return len(await runner.strays())

        assert await idle_within(strays, 30)
        assert await runner.busy() == 1


async def test_leaving_during_the_prompt_frees_the_slot(start: Start) -> None:
    runner = await start(num_ctx=8192, slots=1)
    long = Prompt(tuple((await prompt(runner, "All work and no play. ")).tokens * 1000)[:8000])
    request = asyncio.create_task(answer(runner, long, GREEDY))
    while not await runner.busy():
        assert not request.done()
    before = worked(runner)
    request.cancel()
    await asyncio.wait({request})
    assert await idle_within(runner.busy, 60)
    assert worked(runner) - before < 4.0, "a physical batch of the prompt is not interrupted, and no more is computed"


async def test_embeddings_do_not_depend_on_company(start: Start) -> None:
    runner = await start(embedding=True, slots=1)
    texts = [await runner.tokenize(text, special=False, bos=True) for text in ("The sea", "The sea is blue", "Tax law")]
    alone = [await runner.embed(ids) for ids in texts]
    together = await asyncio.gather(*(runner.embed(ids) for ids in texts * 2))
    assert together == alone * 2
    assert len(alone[0]) == runner.info.embedding_length
    assert runner.info.features == {Feature.EMBED}
    with pytest.raises(ContextLengthExceeded):
        await runner.embed([5] * 1025)


RULES = "Answer in one word. " * 16


async def turn(runner: Runner, text: str, key: str | None) -> tuple[str, int]:
    """A prompt and its short answer, and how many tokens of the prompt were cached."""
    asked = replace(await prompt(runner, text), cache_key=key)
    tokens, end = await answer(runner, asked, Sampling(max_tokens=8, seed=1, temperature=0.0))
    return text + text_of(tokens), end.cached_tokens


@pytest.mark.parametrize("keyed", [True, False])
async def test_a_cache_key_brings_a_conversation_back_to_its_slot(start: Start, keyed: bool) -> None:
    """Others with the same beginning compete for the cache. Without keys they throw a conversation's rest away."""
    runner = await start()

    def key(name: str) -> str | None:
        return name if keyed else None

    shared, _ = await turn(runner, chat(RULES), None)
    first = chat(RULES + "Tell me all about ships. " * 12)
    said, _ = await turn(runner, first, key("ships"))
    for other in ("trains", "planes"):
        await turn(runner, chat(RULES + f"Tell me all about {other}. " * 12), key(other))
    rules, whole = len((await prompt(runner, RULES)).tokens), len((await prompt(runner, first)).tokens)
    _, cached = await turn(runner, f"{said}<|im_end|>\n" + chat("And how many are there?"), key("ships"))
    assert whole > rules + 50
    if keyed:
        assert cached >= whole
    else:
        assert rules <= cached < rules + 20
    assert shared


async def test_requests_of_one_key_at_once_do_not_wait_for_one_slot(start: Start) -> None:
    runner = await start()
    await turn(runner, chat("Hello"), "a")
    begun: list[int] = []
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def long() -> int:
        asked = replace(await prompt(runner, chat("Tell a story.")), cache_key="a")
        async with aclosing(steps(runner, asked, Sampling(max_tokens=500, seed=1, ignore_eos=True))) as running:
            begun.append(len([await anext(running)]))
            if len(begun) == 3:
                seen.set_result(await runner.busy())
            return await seen

    assert await asyncio.gather(long(), long(), long()) == [3, 3, 3]


@pytest.mark.parametrize("gbnf", ['root ::= "a', "root ::= b", 'root ::= root "a" | "b"', 'start ::= "a"'])
async def test_a_grammar_that_the_engine_refuses_is_the_callers_mistake(runner: Runner, gbnf: str) -> None:
    """`chat.grammar` finds these before; what it may miss must not look like a fault of the engine."""
    with pytest.raises(InvalidRequest) as caught:
        await answer(runner, "Hello", GREEDY, Constraint(gbnf))
    assert (caught.value.param, caught.value.code) == ("grammar", "invalid_grammar")


async def test_a_control_token_counts_in_a_grammar_as_its_text(runner: Runner) -> None:
    """So models write marks like [TOOL_CALLS] their own way, and what reads the answer gets their text back."""
    likely = Sampling(max_tokens=8, seed=1, temperature=0.0, logit_bias=((1, 100.0),))
    tokens, end = await answer(runner, chat("Hi"), likely, Constraint('root ::= "<|im_start|>" "x"'))
    assert [token.data for token in tokens] == [b"", b"x"]
    assert (tokens[0].id, end.reason) == (1, "stop")
    marks = await control_bytes(runner, ["<|im_start|>"])
    choice = Choice(0, TextStream(()), controls=marks)
    said = [event.text for token in tokens for event in choice.feed(token) if isinstance(event, TextDelta)]
    assert "".join(said) == "<|im_start|>x"


@pytest.mark.parametrize("template", FOREIGN_TEMPLATES)
async def test_the_models_template_is_not_the_engines_to_read(tmp_path: Path, template: str) -> None:
    async with starting(write_tiny_llama(tmp_path / "tiny.gguf", chat_template=template)) as start:
        tiny = await start()
        tokens, _ = await answer(tiny, await prompt(tiny, "a"), replace(GREEDY, max_tokens=2))
        assert tokens
