"""/v1/embeddings."""

from __future__ import annotations

import math

import pytest


def embed(server, input_, **fields):
    return server.post("/v1/embeddings", {"model": "embedder", "input": input_, **fields})


def vectors(answer) -> list[list[float]]:
    assert answer.status == 200, answer.body
    return [one["embedding"] for one in answer.json["data"]]


def test_shape(server):
    whole = embed(server, "hi").json
    assert whole.keys() == {"object", "data", "model", "usage"}
    assert (whole["object"], whole["model"]) == ("list", "embedder")
    assert (whole["data"][0]["object"], whole["data"][0]["index"]) == ("embedding", 0)
    assert whole["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


def test_every_form_gives_the_same_vector_in_order(server):
    [single] = vectors(embed(server, "hi"))
    assert math.isclose(math.hypot(*single), 1, abs_tol=1e-6)
    assert vectors(embed(server, [104, 105])) == [single]
    assert vectors(embed(server, ["yo", "hi"]))[1] == single
    assert vectors(embed(server, [[121, 111], [104, 105]]))[1] == single
    many = vectors(embed(server, [f"text {i}" for i in range(50)]))
    assert many == [vectors(embed(server, f"text {i}"))[0] for i in range(50)]


def test_dimensions_cut_and_normalise(server):
    [whole] = vectors(embed(server, "hi"))
    [cut] = vectors(embed(server, "hi", dimensions=3))
    length = math.hypot(*whole[:3])
    assert cut == pytest.approx([value / length for value in whole[:3]])
    too_many = embed(server, "hi", dimensions=10_000)
    assert (too_many.status, too_many.error["param"]) == (400, "dimensions")


def test_an_input_over_the_limit_is_refused_by_index(server):
    answer = embed(server, ["short", "x" * 5000])
    assert answer.status == 400
    assert answer.error["code"] == "context_length_exceeded"
    assert "1" in f"{answer.error['param']} {answer.error['message']}"


@pytest.mark.parametrize("input_", ["", [], [""], [[]], None, 5, [5, "x"], ["x"] * 2049, {"a": 1}])
def test_bad_inputs_are_refused(server, input_):
    answer = embed(server, input_)
    assert answer.status == 400
    assert answer.error["param"].startswith("input")


def test_a_chat_model_that_cannot_embed_or_can_says_so(server):
    answer = embed(server, "hi", model="nope")
    assert answer.status == 404
