"""Log-probabilities on real engines where tokens are parts of characters: one entry a token, with its true bytes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from openai.types.chat.chat_completion_token_logprob import ChatCompletionTokenLogprob as Entry

from .conftest import Program

HI: Any = [{"role": "user", "content": "Hi"}]
FORCED = "[🦊🐼🦄][一-龥][가-힣]é"
SPOKEN: Any = [{"role": "user", "content": "日本語で答えて。"}, {"role": "assistant", "content": "日本語の文字は、"}]


def chat(program: Program, *, stream: bool, top: int, messages: Any = HI, **extra: Any) -> tuple[str, int, list[Entry]]:
    """Text, completion tokens and entries of one answer."""
    fields: dict[str, Any] = {"model": "smollm2", "messages": messages, "seed": 3, "temperature": 1, "max_tokens": 24}
    fields |= {"logprobs": True, "top_logprobs": top, "extra_body": extra}
    create = program.client.chat.completions.create
    if not stream:
        answer = create(**fields)
        [choice] = answer.choices
        return choice.message.content, answer.usage.completion_tokens, choice.logprobs.content
    *chunks, last = create(**fields, stream=True, stream_options={"include_usage": True})
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    found = [chunk.choices[0].logprobs for chunk in chunks]
    return text, last.usage.completion_tokens, [entry for one in found if one for entry in one.content or []]


def check(text: str, tokens: int, entries: list[Entry], top: int) -> None:
    assert len(entries) == tokens
    assert b"".join(bytes(entry.bytes or []) for entry in entries).decode(errors="replace") == text
    assert any(not whole(entry) for entry in entries), "tokens that are parts of characters occur"
    for entry in entries:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == top
        assert [one.logprob for one in entry.top_logprobs] == sorted(
            (one.logprob for one in entry.top_logprobs), reverse=True
        )
        assert len({(one.token, tuple(one.bytes or [])) for one in entry.top_logprobs}) == top
        same = [one.logprob for one in entry.top_logprobs if one.bytes == entry.bytes]
        assert same in ([], [pytest.approx(entry.logprob, abs=1e-3)])


def whole(entry: Entry) -> bool:
    try:
        bytes(entry.bytes or []).decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("top", "stream"), [(0, False), (5, True), (20, False), (20, True)])
def test_characters_that_a_grammar_forces(program: Program, top: int, stream: bool) -> None:
    text, tokens, entries = chat(program, top=top, stream=stream, guided_regex=FORCED)
    assert re.fullmatch(FORCED, text)
    check(text, tokens, entries, top)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("top", "stream"), [(0, True), (5, False)])
def test_characters_that_a_prefill_calls_for(program: Program, top: int, stream: bool) -> None:
    text, tokens, entries = chat(program, top=top, stream=stream, messages=SPOKEN, continue_final_message=True)
    assert tokens > 4
    check(text, tokens, entries, top)


def test_streamed_or_whole_is_the_same(program: Program) -> None:
    asks = [chat(program, top=2, stream=stream, messages=SPOKEN, continue_final_message=True) for stream in (0, 1)]
    assert asks[0] == asks[1]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("top", [0, 5])
def test_an_echoed_prompt_is_scored(program: Program, top: int) -> None:
    prompt = "The fox 🦊 is 狐 in 日本語"
    answer = program.client.completions.create(
        model="smollm2", prompt=prompt, echo=True, logprobs=top, max_tokens=3, temperature=0
    )
    [choice] = answer.choices
    columns = choice.logprobs
    assert columns
    assert columns.tokens
    assert columns.token_logprobs
    assert columns.top_logprobs
    assert columns.text_offset
    data = [legacy_bytes(token) for token in columns.tokens]
    assert len(data) == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert b"".join(data).decode(errors="replace") == choice.text
    assert choice.text.startswith(prompt)
    assert sum(token.startswith("bytes:") for token in columns.tokens) > 3
    assert columns.token_logprobs[0] is None
    assert all(value <= 0 for value in columns.token_logprobs[1:])
    # The chosen token is among its alternatives, or comes beside them.
    assert {len(tops) for tops in columns.top_logprobs[1:]} <= {max(top, 1), top + 1}
    text = b""
    for offset, piece in zip(columns.text_offset, data, strict=True):
        assert offset == len(text.decode(errors="ignore"))
        text += piece


def legacy_bytes(token: str) -> bytes:
    if not token.startswith("bytes:"):
        return token.encode()
    return bytes(int(part, 16) for part in token.removeprefix("bytes:").split("\\x")[1:])


def test_a_token_that_must_come_is_told_as_unlikely_as_it_was(program: Program) -> None:
    """What is told is the model's own opinion, from before any bias."""
    ids = program.client.post(
        f"{program.url}/tokenize", body={"model": "smollm2", "content": " banana"}, cast_to=object
    )
    assert isinstance(ids, dict)
    answer = program.client.chat.completions.create(
        model="smollm2", messages=HI, logprobs=True, top_logprobs=1, max_tokens=1, logit_bias={ids["tokens"][0]: 100}
    )
    [entry] = answer.choices[0].logprobs.content
    assert entry.logprob < -5
    assert entry.top_logprobs[0].logprob > entry.logprob
