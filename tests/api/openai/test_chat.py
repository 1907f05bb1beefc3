"""/v1/chat/completions: the exact shape of answers and streams."""

from __future__ import annotations

import base64
import json
from itertools import groupby
from typing import Any

import pytest

from fakes.projectors import plain

TOKENS = ["Hello", " there", ",", " friend", "."]


def deltas(chunks: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    return [c["delta"] for chunk in chunks for c in chunk["choices"] if c["index"] == index]


def joined(chunks: list[dict[str, Any]], key: str = "content", index: int = 0) -> str:
    return "".join(delta.get(key) or "" for delta in deltas(chunks, index))


def test_answer_has_every_required_key(server):
    answer = server.chat()
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    whole = answer.json
    assert whole.keys() == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert whole["id"].startswith("chatcmpl-")
    assert whole["object"] == "chat.completion"
    assert whole["model"] == "tiny"
    assert whole["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there, friend.", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]


def test_usage_counts_prompt_completion_and_cached(server):
    server.chat("count me")
    usage = server.chat("count me").json["usage"]
    assert usage["completion_tokens"] == len(TOKENS)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": usage["prompt_tokens"] - 1, "audio_tokens": 0}
    assert usage["completion_tokens_details"] == {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    }


@pytest.mark.parametrize(
    ("content", "accepted", "rejected"),
    [
        ("one two three", 13, 0),
        ("one TWO three", 10, 3),
        ([{"type": "text", "text": "one two"}, {"type": "text", "text": " three"}], 13, 0),
        ("one two three and four", 13, 9),
        ("wholly else", 0, 11),
        ("", 0, 0),
    ],
)
def test_usage_counts_the_tokens_of_a_prediction_that_came_true(server, content, accepted, rejected):
    said = {"prediction": {"type": "content", "content": content}}
    answer = server.chat("LETTERS", **said)
    details = answer.json["usage"]["completion_tokens_details"]
    assert (details["accepted_prediction_tokens"], details["rejected_prediction_tokens"]) == (accepted, rejected)
    assert "x-puna-ignored" not in answer.headers
    streamed = server.chat("LETTERS", stream=True, stream_options={"include_usage": True}, **said)
    assert streamed.chunks[-1]["usage"]["completion_tokens_details"] == details


def test_choices_and_answers_that_a_stop_string_cuts_count_too(server):
    said = {"prediction": {"type": "content", "content": "one two three"}}
    two = server.chat("LETTERS", n=2, stop=[" t"], **said).json["usage"]["completion_tokens_details"]
    assert two["accepted_prediction_tokens"] == 2 * len("one t")
    assert two["rejected_prediction_tokens"] == 2 * len("wo three")


def test_a_prediction_is_content(server):
    answer = server.chat(prediction={"type": "other", "content": "x"})
    assert answer.status == 400
    assert answer.error["param"] == "prediction.type"


def test_stream_has_role_then_text_then_finish_then_done(server):
    answer = server.chat(stream=True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    chunks = answer.chunks
    assert {(c["id"], c["created"], c["model"], c["object"], c["system_fingerprint"]) for c in chunks} == {
        (chunks[0]["id"], chunks[0]["created"], "tiny", "chat.completion.chunk", chunks[0]["system_fingerprint"])
    }
    role, *texts, finish = [chunk["choices"][0] for chunk in chunks]
    assert role == {
        "index": 0,
        "delta": {"role": "assistant", "content": "", "refusal": None},
        "logprobs": None,
        "finish_reason": None,
    }
    assert texts == [
        {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None} for text in TOKENS
    ]
    assert finish == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert all("usage" not in chunk for chunk in chunks)


def test_stream_ends_with_usage_when_asked(server):
    *others, last = server.chat(stream=True, stream_options={"include_usage": True}).chunks
    assert all(chunk["usage"] is None for chunk in others)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == len(TOKENS)
    assert last["usage"].keys() == server.chat().json["usage"].keys()


def test_obfuscation_pads_chunks_only_when_asked(server):
    plain = server.chat(stream=True, stream_options={"include_obfuscation": False}).chunks
    assert all("obfuscation" not in chunk for chunk in plain)
    padded = server.chat(stream=True, stream_options={"include_obfuscation": True}).chunks
    assert all(chunk["obfuscation"] for chunk in padded)
    assert joined(padded) == joined(plain)


def test_length_is_told(server):
    answer = server.chat(max_tokens=2).json
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["choices"][0]["message"]["content"] == "Hello there"
    assert answer["usage"]["completion_tokens"] == 2


def test_stop_string_over_two_tokens_never_shows(server):
    answer = server.chat(stop=["re, fr"]).json["choices"][0]
    assert (answer["message"]["content"], answer["finish_reason"]) == ("Hello the", "stop")
    chunks = server.chat(stop=["re, fr"], stream=True).chunks
    assert joined(chunks) == "Hello the"


def test_characters_split_over_tokens_arrive_whole(server):
    assert server.chat("EMOJI").json["choices"][0]["message"]["content"] == "Hi 😀 世界!"
    chunks = server.chat("EMOJI", stream=True).chunks
    assert joined(chunks) == "Hi 😀 世界!"
    assert all("�" not in json.dumps(chunk, ensure_ascii=False) for chunk in chunks)


def test_a_first_token_that_is_half_a_character_still_has_a_role_chunk(server):
    role, text, *_ = deltas(server.chat("HALF FIRST", stream=True).chunks)
    assert role["role"] == "assistant"
    assert text == {"content": "😀"}


def test_empty_answer_has_role_and_finish(server):
    assert server.chat("EMPTY").json["choices"][0]["message"]["content"] == ""
    assert deltas(server.chat("EMPTY", stream=True).chunks) == [
        {"role": "assistant", "content": "", "refusal": None},
        {},
    ]


def test_n_answers_count_the_prompt_once(server):
    one = server.chat("many").json["usage"]
    answer = server.chat("many", n=10).json
    assert [choice["index"] for choice in answer["choices"]] == list(range(10))
    assert answer["usage"]["prompt_tokens"] == one["prompt_tokens"]
    assert answer["usage"]["completion_tokens"] == 10 * one["completion_tokens"]


def test_n_streams_appear_in_index_order_with_one_usage_chunk(server):
    chunks = server.chat("many", n=10, stream=True, stream_options={"include_usage": True}).chunks
    appeared = [index for index, _ in groupby(c["choices"][0]["index"] for c in chunks if c["choices"])]
    assert list(dict.fromkeys(appeared)) == list(range(10))
    assert [chunk["usage"] for chunk in chunks].count(None) == len(chunks) - 1
    for index in range(10):
        own = deltas(chunks, index)
        assert [delta.get("role") for delta in own].count("assistant") == 1
        assert joined(chunks, index=index) == "Hello there, friend."


def test_logprobs_one_entry_a_token_with_true_bytes(server):
    answer = server.chat("EMOJI", logprobs=True, top_logprobs=3).json
    choice = answer["choices"][0]
    entries = choice["logprobs"]["content"]
    assert choice["logprobs"]["refusal"] is None
    assert len(entries) == answer["usage"]["completion_tokens"]
    assert bytes(b for entry in entries for b in entry["bytes"]).decode() == choice["message"]["content"]
    assert all(entry.keys() == {"token", "logprob", "bytes", "top_logprobs"} for entry in entries)
    assert all(len(entry["top_logprobs"]) == 3 for entry in entries)
    assert all(one.keys() == {"token", "logprob", "bytes"} for entry in entries for one in entry["top_logprobs"])
    assert entries[1]["token"] == "\\xf0\\x9f"


def test_logprobs_without_alternatives(server):
    for fields in ({"logprobs": True}, {"logprobs": True, "top_logprobs": 0}):
        entries = server.chat(**fields).json["choices"][0]["logprobs"]["content"]
        assert [entry["top_logprobs"] for entry in entries] == [[]] * len(TOKENS)


def test_logprobs_in_a_stream(server):
    chunks = server.chat("EMOJI", logprobs=True, top_logprobs=1, stream=True).chunks
    role, *middle, finish = [chunk["choices"][0] for chunk in chunks]
    assert role["logprobs"] == {"content": [], "refusal": None}
    assert finish["logprobs"] is None
    data = bytes(b for choice in middle for entry in choice["logprobs"]["content"] for b in entry["bytes"])
    assert data.decode() == "Hi 😀 世界!"


def test_thinking_has_both_names_and_is_counted(server):
    answer = server.chat("THINK", model="thinker").json
    message = answer["choices"][0]["message"]
    assert message["content"] == "Forty-two."
    assert message["reasoning"] == message["reasoning_content"] == "Let me see."
    assert 0 < answer["usage"]["completion_tokens_details"]["reasoning_tokens"] < answer["usage"]["completion_tokens"]
    chunks = server.chat("THINK", model="thinker", stream=True).chunks
    assert joined(chunks, "reasoning") == joined(chunks, "reasoning_content") == "Let me see."
    assert joined(chunks) == "Forty-two."


@pytest.mark.parametrize("stream", [False, True])
def test_seed_is_reported_on(server, serving, stream):
    assert server.chat(seed=1, stream=stream).headers["x-puna-seed"] == "exact"
    assert "x-puna-seed" not in server.chat(stream=stream).headers
    with serving({"default": {"text": "x"}, "models": [{"seed_exact": False}]}) as other:
        assert other.chat(seed=1, stream=stream).headers["x-puna-seed"] == "best-effort"


def test_fingerprint_changes_with_load_settings(server):
    def fingerprint(**fields: Any) -> str:
        text: str = server.chat(**fields).json["system_fingerprint"]
        return text

    assert fingerprint() == fingerprint(temperature=0.1)
    assert fingerprint() != fingerprint(model="tools")


def test_service_tier_is_echoed_when_sent(server):
    assert server.chat(service_tier="auto").json["service_tier"] == "default"
    assert all(chunk["service_tier"] == "default" for chunk in server.chat(service_tier="flex", stream=True).chunks)


def test_prompt_is_rendered_with_every_part(server):
    body = {
        "model": "tiny",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "PROMPT"}, {"type": "text", "text": "two"}]},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "user", "content": "go"},
        ],
    }
    text = server.post("/v1/chat/completions", body).json["choices"][0]["message"]["content"]
    # Control tokens are echoed as nothing.
    assert text == "system\nBe brief.\nuser\nPROMPT\ntwo\nassistant\nNo.\nuser\ngo\nassistant\n"


def test_final_message_is_continued_when_asked(server):
    messages = [{"role": "user", "content": "PROMPT"}, {"role": "assistant", "content": "Once upon"}]
    body = {"model": "tiny", "messages": messages}

    def prompt(**fields: Any) -> str:
        text: str = server.post("/v1/chat/completions", body | fields).json["choices"][0]["message"]["content"]
        return text

    assert prompt().endswith("assistant\nOnce upon\nassistant\n")
    assert prompt(continue_final_message=True, add_generation_prompt=False).endswith("assistant\nOnce upon")


def test_null_is_absent_everywhere(server):
    fields = dict.fromkeys(
        ("temperature", "stop", "tools", "tool_choice", "response_format", "logit_bias", "n", "seed", "audio", "user")
    )
    answer = server.chat(**fields)
    assert answer.status == 200
    assert "x-puna-ignored" not in answer.headers


def test_a_fault_before_the_first_token_is_a_status(serving):
    with serving() as own:
        answer = own.chat("DIE FIRST", stream=True)
        assert answer.status == 500
        assert answer.error["code"] == "runner_died"
        assert "scripted death" in answer.error["message"]
        assert answer.headers["x-should-retry"] == "true"
        assert own.chat().status == 200


def test_a_fault_after_it_is_an_event_and_a_clean_end(serving):
    with serving() as own:
        answer = own.chat("DIE LATE", stream=True)
        assert answer.status == 200
        *_, last = [json.loads(event) for event in answer.events]
        assert last["error"]["code"] == "runner_died"
        assert last["error"].keys() == {"message", "type", "param", "code"}


def test_a_failed_load_says_why(serving):
    with serving({"models": [{"load_error": "no room for the weights"}]}) as own:
        for stream in (False, True):
            answer = own.chat(stream=stream)
            assert answer.status == 500
            assert answer.error["code"] == "model_load_failed"
            assert "no room for the weights" in answer.error["message"]
            assert answer.headers["x-should-retry"] == "false"


def test_unknown_model_says_how_to_pull(server):
    answer = server.chat(model="nope")
    assert answer.status == 404
    assert answer.error["code"] == "model_not_found"
    assert "puna pull nope" in answer.error["message"]


def test_a_prompt_over_the_context_is_refused_with_both_numbers(server):
    answer = server.chat("long " * 2000)
    assert answer.status == 400
    assert answer.error["code"] == "context_length_exceeded"
    assert answer.error["param"] == "messages"
    assert "maximum context length is 4096 tokens" in answer.error["message"]


def test_images_need_a_model_that_sees(server):
    image = {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(plain((1, 2, 3), 4, 4)).decode()}"},
    }
    answer = server.post("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": [image]}]})
    assert answer.status == 400
    assert answer.error["code"] == "unsupported_value"
    assert "does not support images" in answer.error["message"]


def test_an_embedding_model_does_not_chat(server):
    answer = server.chat(model="embedder")
    assert answer.status == 400
    assert "does not support chat" in answer.error["message"]
