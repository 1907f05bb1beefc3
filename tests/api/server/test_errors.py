"""Whatever goes wrong: the right status, a body in the dialect's shape, nothing 5xx for a client's mistake."""

from __future__ import annotations

import json
import random
import string

import pytest

OPENAI_POSTS = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/decisions",
    "/v1/rerank",
    "/rerank",
    "/v1/score",
    "/tokenize",
    "/detokenize",
]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/file",
        "/v1/batches/x/y",
        "/v1/x",
    ],
)
def test_routes_not_offered(server, path):
    answer = server.post(path, {})
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.error.keys() == {"message", "type", "param", "code"}
    assert answer.error["code"] == "unknown_url"
    assert f"POST {path}" in answer.error["message"]
    assert "does not offer" in answer.error["message"]


def test_the_native_dialect_has_its_own_shape(server):
    answer = server.get("/api/nothing")
    assert answer.status == 404
    assert isinstance(answer.json["error"], str)


def test_wrong_method(server):
    answer = server.get("/v1/completions")
    assert answer.status == 405
    assert answer.error["code"] == "method_not_supported"
    assert answer.headers["allow"] == "POST"
    assert isinstance(server.request("PUT", "/api/chat", {}).json["error"], str)


def test_every_answer_has_an_id_and_a_time(server):
    answers = [server.get("/health"), server.get("/v1/x"), server.chat(), server.chat(stream=True), server.chat(n=0)]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert all(id_.startswith("req_") for id_ in ids)
    assert all(answer.headers["openai-processing-ms"].isdigit() for answer in answers)


MALFORMED = {
    "empty": b"",
    "blank": b" \n",
    "cut": b'{"model": "tiny"',
    "trailing comma": b'{"model": "tiny",}',
    "two values": b"{} {}",
    "single quotes": b"{'model': 'tiny'}",
    "not utf-8": b'{"model": "\xff"}',
    "lone surrogate": b'{"model": "\\ud800"}',
    "control character": b'{"model": "a\x00b"}',
    "nan": b'{"model": "tiny", "temperature": NaN}',
    "infinity": b'{"model": "tiny", "temperature": -Infinity}',
    "huge exponent": b'{"model": "tiny", "options": {"temperature": 1e999}}',
    "huge integer": b'{"model": "tiny", "options": {"seed": ' + b"9" * 400 + b"}}",
    "absurd integer": b'{"model": "tiny", "seed": ' + b"9" * 5000 + b"}",
    "deep": b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep and open": b"[" * 100_000,
    "array": b"[1]",
    "string": b'"x"',
    "null": b"null",
}


@pytest.mark.parametrize("path", OPENAI_POSTS)
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_json_is_a_400_that_says_where(server, path, body):
    answer = server.post(path, body)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert (answer.error["code"], answer.error["param"]) == (None, None)
    assert "could not parse the JSON body" in answer.error["message"]


def test_malformed_json_names_line_and_column(server):
    message = server.post("/v1/chat/completions", b'{\n  "model": tiny\n}').error["message"]
    assert "line 2 column" in message


def test_a_byte_order_mark_and_any_content_type_are_fine(server):
    body = b'\xef\xbb\xbf{"model": "tiny", "messages": [{"role": "user", "content": "x"}]}'
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert server.post("/v1/chat/completions", body, headers=headers).status == 200


def test_encoded_bodies_are_refused_in_words(server):
    answer = server.post("/v1/chat/completions", {"model": "tiny"}, headers={"content-encoding": "zstd"})
    assert answer.status == 400
    assert "zstd" in answer.error["message"]


BODIES = {
    "/v1/chat/completions": {
        "model": "tiny",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "temperature": 1,
        "max_tokens": 3,
        "stop": ["a"],
        "logit_bias": {"1": 1},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "stream_options": None,
        "options": {"num_ctx": 4096},
    },
    "/v1/completions": {"model": "tiny", "prompt": ["a", "b"], "max_tokens": 2, "logprobs": 1, "echo": True, "n": 1},
    "/v1/embeddings": {"model": "embedder", "input": ["a", "b"], "dimensions": 4, "encoding_format": "float"},
    "/v1/decisions": {
        "model": "tiny",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "y"},
        ],
        "questions": [
            {"type": "predicate", "instructions": "x"},
            {"type": "choice", "instructions": "x", "choices": [{"value": "a"}, {"value": True, "description": "t"}]},
            {"type": "score", "name": "n", "instructions": "x", "levels": [{"label": "a"}, {"label": "b"}]},
        ],
    },
    "/v1/rerank": {"model": "ranker", "query": "x", "documents": ["a", {"text": "b"}], "top_n": 1, "truncation": True},
    "/rerank": {"model": "ranker", "query": "x", "texts": ["a", "b"], "raw_scores": True, "truncate": False},
    "/v1/score": {"model": "ranker", "text_1": "x", "text_2": ["a", "b"]},
    "/tokenize": {"model": "tiny", "prompt": "hi"},
    "/detokenize": {"model": "tiny", "tokens": [1, 2]},
}


def damaged(value: object, source: random.Random) -> object:
    """`value` with one thing broken somewhere in it."""
    junk: list[object] = [
        None, True, -1, 0, 2**31, 2**63, -(2**64), 10**300, 1.5, -0.0, 1e308, "", "x" * 10_000, "\x00", "😀\u202e", [],
        {}, [[]], [None], {"": None}, {"type": "x"}, "".join(source.choices(string.printable, k=20)),
    ]  # fmt: skip
    if isinstance(value, dict) and value and source.random() < 0.8:
        key = source.choice([*value])
        action = source.random()
        if action < 0.15:
            return {k: v for k, v in value.items() if k != key}
        if action < 0.25:
            return {**value, f"{key}x": value[key]}
        return {**value, key: damaged(value[key], source)}
    if isinstance(value, list) and value and source.random() < 0.8:
        index = source.randrange(len(value))
        return [*value[:index], damaged(value[index], source), *value[index + 1 :]]
    return source.choice(junk)


@pytest.mark.parametrize("path", BODIES)
def test_damaged_requests_never_break_the_server(server, path):
    source = random.Random(path)
    statuses = set()
    for _ in range(500):
        body = damaged(BODIES[path], source)
        answer = server.post(path, json.dumps(body).encode())
        assert answer.status < 500, (body, answer.body)
        if answer.status != 200:
            assert answer.error["message"]
            assert answer.error.keys() == {"message", "type", "param", "code"}
        statuses.add(answer.status)
    assert 400 in statuses
    assert server.get("/health").status == 200
    assert server.busy() == 0
