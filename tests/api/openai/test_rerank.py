"""Ranks in the forms that clients know: Jina's and Cohere's, TEI's, vLLM's scores."""

from __future__ import annotations

from typing import Any

import pytest

QUERY = "grey cat"
DOCUMENTS = ["a dog", "a grey cat", "a cat"]
"""The scripted engine counts the words that a query and a document share."""


def rerank(server: Any, path: str = "/v1/rerank", **fields: Any) -> Any:
    return server.post(path, {"model": "ranker", "query": QUERY, "documents": DOCUMENTS, **fields})


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_the_best_come_first(server, path):
    answer = rerank(server, path).json
    assert [result["index"] for result in answer["results"]] == [1, 2, 0]
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] + scores[2] == pytest.approx(1)
    assert all("document" not in result for result in answer["results"])
    assert answer.keys() == {"id", "object", "model", "results", "usage", "meta"}
    size = sum(len(QUERY) + len(document) for document in DOCUMENTS)
    assert answer["usage"] == {"prompt_tokens": size, "completion_tokens": 0, "total_tokens": size}
    assert answer["meta"]["tokens"]["input_tokens"] == size


def test_so_many_and_with_their_texts(server):
    [best] = rerank(server, top_n=1, return_documents=True).json["results"]
    assert (best["index"], best["document"]) == (1, {"text": "a grey cat"})
    objects = [{"text": text} for text in DOCUMENTS]
    assert [one["document"]["text"] for one in rerank(server, documents=objects).json["results"]] == [
        "a grey cat",
        "a cat",
        "a dog",
    ]
    assert all(
        "document" not in one for one in rerank(server, documents=objects, return_documents=False).json["results"]
    )


def test_the_form_of_tei(server):
    body = {"query": QUERY, "texts": DOCUMENTS, "model": "ranker"}
    plain = server.post("/rerank", body).json
    assert [one["index"] for one in plain] == [1, 2, 0]
    assert all(one.keys() == {"index", "score"} and 0 < one["score"] < 1 for one in plain)
    raw = server.post("/rerank", {**body, "raw_scores": True, "return_text": True}).json
    assert [(one["score"], one["text"]) for one in raw] == [(2.0, "a grey cat"), (0.0, "a cat"), (-2.0, "a dog")]


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
def test_the_form_of_vllm(server, path):
    one = server.post(path, {"model": "ranker", "text_1": QUERY, "text_2": DOCUMENTS}).json
    assert [(item["index"], item["object"]) for item in one["data"]] == [(0, "score"), (1, "score"), (2, "score")]
    assert one["data"][1]["score"] > one["data"][2]["score"] > one["data"][0]["score"]
    each = server.post(path, {"model": "ranker", "text_1": ["dog", "cat", "cat"], "text_2": DOCUMENTS}).json
    assert len({item["score"] for item in each["data"]}) == 1
    uneven = server.post(path, {"model": "ranker", "text_1": ["dog", "cat"], "text_2": DOCUMENTS})
    assert (uneven.status, uneven.error["param"]) == (400, "text_1")


def test_too_long_documents_are_refused_by_index_or_cut(server):
    long = ["a cat", "a cat and " + "x " * 4000]
    refused = rerank(server, documents=long)
    assert (refused.status, refused.error["param"]) == (400, "documents[1]")
    assert refused.error["code"] == "context_length_exceeded"
    assert server.post("/rerank", {"model": "ranker", "query": "x", "texts": long}).error["param"] == "texts[1]"
    cut = rerank(server, documents=long, truncation=True)
    assert (cut.status, cut.headers["x-puna-truncated"]) == (200, "1")
    assert {one["index"]: one["relevance_score"] for one in cut.json["results"]}[1] == pytest.approx(0.5)
    few = rerank(server, documents=["a cat", "a"], max_tokens_per_doc=3)
    assert (few.headers["x-puna-truncated"], few.json["usage"]["prompt_tokens"]) == ("1", 2 * len(QUERY) + 4)
    hopeless = rerank(server, query="y" * 5000, truncation=True)
    assert (hopeless.status, hopeless.error["param"]) == (400, "query")


@pytest.mark.parametrize("model", ["tiny", "embedder", "vision"])
def test_models_that_do_not_rank_are_refused_by_name(server, model):
    answer = rerank(server, model=model)
    assert (answer.status, answer.error["param"]) == (400, "model")
    assert f'"{model}:latest" does not support reranking' in answer.error["message"]


def test_a_ranking_model_does_nothing_else(server):
    for path, body in (
        ("/v1/embeddings", {"model": "ranker", "input": "x"}),
        ("/v1/completions", {"model": "ranker", "prompt": "x"}),
        ("/v1/chat/completions", {"model": "ranker", "messages": [{"role": "user", "content": "x"}]}),
    ):
        answer = server.post(path, body)
        assert (answer.status, answer.error["param"]) == (400, "model")
    assert server.get("/v1/models/ranker").json["capabilities"] == ["rerank"]


def test_a_model_of_two_words_ranks_by_them(serving):
    rule = {"when": {"pattern": "<Query>: q\n\n<Document>: good"}, "answer": {"text": "yes"}}
    with serving(script={"rules": [rule], "default": {"text": "no"}}) as server:
        answer = rerank(server, model="says-yes", query="q", documents=["bad", "good", "good<|im_end|>"])
        assert answer.status == 200, answer.body
        scores = {one["index"]: one["relevance_score"] for one in answer.json["results"]}
        assert scores[1] > 0.5 > scores[0]
        # It still chats, as what it is.
        assert server.chat(model="says-yes").status == 200
        assert set(server.get("/v1/models/says-yes").json["capabilities"]) >= {"rerank", "completion"}


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": "text"}, "documents"),
        ({"documents": [5]}, "documents[0]"),
        ({"documents": [{"image": "x"}]}, "documents[0].text"),
        ({"documents": [{"text": "x", "image": "x"}]}, "documents[0].image"),
        ({"query": ""}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"rank_fields": ["title"]}, "rank_fields"),
    ],
)
def test_bad_requests_name_the_field(server, changes, param):
    answer = rerank(server, **changes)
    assert (answer.status, answer.error["param"]) == (400, param)
