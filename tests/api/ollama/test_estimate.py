"""`/api/estimate` and `puna estimate`: what a model would take, without loading it."""

from __future__ import annotations

import json


def estimate(server, status: int = 200, **body):
    answer = server.post("/api/estimate", json.dumps(body).encode())
    assert answer.status == status, answer.body
    return json.loads(answer.body), answer.headers


def loaded(server) -> set[str]:
    return {model["name"] for model in json.loads(server.get("/api/ps").body)["models"]}


def test_it_grows_with_the_context_and_loads_nothing(server):
    before = loaded(server)
    small, _ = estimate(server, model="tiny", options={"num_ctx": 512})
    large, _ = estimate(server, model="tiny", options={"num_ctx": 1024})
    assert (small["num_ctx"], large["num_ctx"]) == (512, 1024)
    assert large["cache"] == 2 * small["cache"]
    assert small["weights"] == large["weights"] > 0
    assert small["total"] == small["weights"] + small["cache"] + small["compute"]
    assert small["fits"]
    assert small["largest_num_ctx"] >= 1024
    assert small["least_slots"] == 1
    assert loaded(server) <= before


def test_what_has_no_effect_is_told_and_what_is_wrong_refused(server):
    _, headers = estimate(server, model="tiny", options={"temperature": 1.0, "num_ctx": 512})
    assert headers["x-puna-ignored"] == "options.temperature"
    for status, body in ((404, {"model": "nobody"}), (400, {"model": "tiny", "options": {"num_ctx": 0}}), (400, {})):
        estimate(server, status, **body)
