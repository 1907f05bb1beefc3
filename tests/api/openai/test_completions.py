"""/v1/completions: prompts continued as they are, in every form."""

from __future__ import annotations

import pytest


def complete(server, prompt, **fields):
    return server.post("/v1/completions", {"model": "tiny", "prompt": prompt, **fields})


def test_shape(server):
    whole = complete(server, "Once").json
    assert whole.keys() == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert whole["id"].startswith("cmpl-")
    assert whole["object"] == "text_completion"
    assert whole["choices"] == [{"text": "Hello there, friend.", "index": 0, "logprobs": None, "finish_reason": "stop"}]


def test_the_prompt_is_not_put_into_the_chat_template(server):
    assert complete(server, "PROMPT as is", max_tokens=100).json["choices"][0]["text"] == "PROMPT as is"


def test_sixteen_tokens_unless_said(server):
    answer = complete(server, "FOREVER").json
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("PROMPT", ["PROMPT"]),
        (["PROMPT a", "PROMPT b"], ["PROMPT a", "PROMPT b"]),
        ([*b"PROMPT c"], ["PROMPT c"]),
        ([[*b"PROMPT d"], [*b"PROMPT e"]], ["PROMPT d", "PROMPT e"]),
    ],
)
def test_every_form_of_prompt(server, prompt, texts):
    answer = complete(server, prompt, max_tokens=100).json
    assert [choice["text"] for choice in answer["choices"]] == texts


def test_choices_are_numbered_prompt_by_prompt(server):
    answer = complete(server, ["PROMPT a", "PROMPT b"], n=2, max_tokens=100).json
    assert [(choice["index"], choice["text"][-1]) for choice in answer["choices"]] == [
        (0, "a"),
        (1, "a"),
        (2, "b"),
        (3, "b"),
    ]
    assert answer["usage"]["prompt_tokens"] == len("PROMPT a") * 2


@pytest.mark.parametrize("prompt", [[], [[]], [1, "a"], ["a", 1], [[1], "a"], [1.5], [True], {}, [10**12], [-1]])
def test_bad_prompts_are_refused(server, prompt):
    answer = complete(server, prompt)
    assert answer.status == 400
    assert answer.error["param"].startswith("prompt")


def test_token_outside_the_vocabulary_is_refused(server):
    answer = complete(server, [2_000_000])
    assert answer.status == 400
    assert answer.error["param"] == "prompt"


def test_echo_with_logprobs_scores_the_prompt(server):
    choice = complete(server, "a😀b", echo=True, logprobs=2, max_tokens=1).json["choices"][0]
    logprobs = choice["logprobs"]
    assert choice["text"] == "a😀bHello"
    assert logprobs["tokens"] == ["a", "bytes:\\xf0", "bytes:\\x9f", "bytes:\\x98", "bytes:\\x80", "b", "Hello"]
    assert logprobs["text_offset"] == [0, 1, 1, 1, 1, 2, 3]
    assert (logprobs["token_logprobs"][0], logprobs["top_logprobs"][0]) == (None, None)
    assert all(isinstance(value, float) for value in logprobs["token_logprobs"][1:])
    assert all(len(top) <= 3 for top in logprobs["top_logprobs"][1:])


def test_echo_alone_scores_without_generating(server):
    answer = complete(server, "abc", echo=True, logprobs=1, max_tokens=0).json
    assert answer["choices"][0]["text"] == "abc"
    assert answer["usage"]["completion_tokens"] == 0
    assert answer["choices"][0]["finish_reason"] == "length"
    refused = complete(server, "abc", max_tokens=0)
    assert (refused.status, refused.error["param"]) == (400, "max_tokens")


def test_best_of(server):
    answer = complete(server, "x", best_of=4, n=2).json
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"]["completion_tokens"] == 4 * 5
    assert complete(server, "x", best_of=1, n=2).error["param"] == "best_of"
    assert complete(server, "x", best_of=2, stream=True).error["param"] == "best_of"


def test_suffix_needs_a_model_that_fills_in(server):
    answer = complete(server, "a", suffix="b", model="tools")
    assert (answer.status, answer.error["param"]) == (400, "suffix")


def test_stream(server):
    chunks = complete(server, ["a", "b"], stream=True, stream_options={"include_usage": True}).chunks
    *others, last = chunks
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    for index in range(2):
        own = [choice for chunk in others for choice in chunk["choices"] if choice["index"] == index]
        assert "".join(choice["text"] for choice in own) == "Hello there, friend."
        assert [choice["finish_reason"] for choice in own] == [None] * (len(own) - 1) + ["stop"]
    assert all(chunk["usage"] is None for chunk in others)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 10)


def test_streamed_echo_with_logprobs_keeps_counting_offsets(server):
    chunks = complete(server, "ab", echo=True, logprobs=1, stream=True).chunks
    columns = [c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["logprobs"]]
    assert [offset for column in columns for offset in column["text_offset"]] == [0, 1, 2, 7, 13, 14, 21]


def test_a_prompt_over_the_context(server):
    answer = complete(server, "x" * 5000)
    assert (answer.error["code"], answer.error["param"]) == ("context_length_exceeded", "prompt")
