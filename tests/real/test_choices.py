"""`n` choices on real engines with fewer slots than choices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.node import Node

from .conftest import Program, serve

HELLO: Any = [{"role": "user", "content": "Say hello."}]
# Answers that end by themselves: OpenAI's accumulators raise for one that was cut.
SHORT = "[A-Z][a-z ]{3,12}[.!]"
TEN: dict[str, Any] = {
    **{"model": "smollm2", "messages": HELLO, "n": 10, "seed": 5, "temperature": 1},
    "extra_body": {"guided_regex": SHORT},
}


@pytest.fixture(scope="module", params=["llama", "cpu"])
def four_slots(
    request: pytest.FixtureRequest, pulled: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    log = tmp_path_factory.mktemp("serve") / "log"
    with serve(pulled, log, PUNA_ENGINE=request.param, PUNA_NUM_PARALLEL="4") as running:
        yield running


@pytest.mark.timeout(600)
def test_ten_choices_whole_and_streamed(four_slots: Program) -> None:
    chat = four_slots.client.chat.completions
    whole = chat.create(**TEN, logprobs=True)
    assert [choice.index for choice in whole.choices] == [*range(10)]
    texts = [choice.message.content for choice in whole.choices]
    assert all(re.fullmatch(SHORT, text or "") for text in texts)
    assert len(set(texts)) > 5, "each has a seed of its own"
    one = chat.create(**TEN | {"n": 1})
    assert one.choices[0].message.content == texts[0], "the first has the request's seed"
    assert whole.usage
    assert one.usage
    assert whole.usage.prompt_tokens == one.usage.prompt_tokens
    entries = [len(choice.logprobs.content or []) for choice in whole.choices if choice.logprobs]
    assert whole.usage.completion_tokens == sum(entries)
    assert whole.usage.total_tokens == one.usage.prompt_tokens + sum(entries)
    with chat.stream(**TEN, stream_options={"include_usage": True}) as stream:
        streamed = stream.get_final_completion()
    assert [choice.message.content for choice in streamed.choices] == texts
    assert [choice.finish_reason for choice in streamed.choices] == [c.finish_reason for c in whole.choices]
    assert streamed.usage
    assert streamed.usage.prompt_tokens == one.usage.prompt_tokens
    assert streamed.usage.completion_tokens == sum(entries)


@pytest.mark.timeout(600)
def test_chunks_of_ten_choices(four_slots: Program) -> None:
    chunks = list(four_slots.client.chat.completions.create(**TEN, stream=True, stream_options={"include_usage": True}))
    indexes = [chunk.choices[0].index for chunk in chunks[:-1]]
    assert [*dict.fromkeys(indexes)] == [*range(10)], "they appear in order"
    assert indexes != sorted(indexes), "and interleaved"
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert sum(chunk.choices[0].finish_reason is not None for chunk in chunks[:-1]) == 10
    assert len({chunk.id for chunk in chunks}) == len({chunk.created for chunk in chunks}) == 1


@pytest.mark.timeout(600)
def test_five_completions_of_each_of_two_prompts(four_slots: Program) -> None:
    prompts = ["Once upon a time", "The capital of France is"]
    fields: dict[str, Any] = {"model": "smollm2", "max_tokens": 4, "seed": 5, "temperature": 1}
    create = four_slots.client.completions.create
    whole = create(prompt=prompts, n=5, logprobs=0, **fields)
    assert [choice.index for choice in whole.choices] == [*range(10)]
    singles = [create(prompt=prompt, n=1, **fields) for prompt in prompts]
    assert [whole.choices[i].text for i in (0, 5)] == [single.choices[0].text for single in singles]
    assert whole.usage
    assert whole.usage.prompt_tokens == sum(single.usage.prompt_tokens for single in singles if single.usage)
    entries = [len(choice.logprobs.tokens or []) for choice in whole.choices if choice.logprobs]
    assert whole.usage.completion_tokens == sum(entries)


@pytest.mark.timeout(600)
def test_node_accumulates_ten_choices(four_slots: Program, node: Node) -> None:
    seen = node.run("real.mjs", four_slots.url, "smollm2", "choices")
    whole = four_slots.client.chat.completions.create(**TEN)
    assert whole.usage
    expected = {
        "indexes": [*range(10)],
        "texts": [choice.message.content for choice in whole.choices],
        "usage": [whole.usage.prompt_tokens, whole.usage.completion_tokens],
    }
    assert seen == {"whole": expected, "streamed": expected}
