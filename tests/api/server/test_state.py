"""What a server tells of itself: `/health`, `/ready`, `/metrics`, and its log as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fakes.raw_http import connected, send
from fakes.waiting import until

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}


def counted(server) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = server.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.body.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def of(counts, name: str, **labels: str) -> float:
    return counts.get((name, tuple(sorted(labels.items()))), 0.0)


def test_health_and_ready(server):
    for path in ("/health", "/ready"):
        answer = server.get(path)
        assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})


def test_both_are_red_while_a_load_is_stuck(serving):
    loading = {"models": [{"match": "tiny*", "load_delay": 600}]}

    def red(path: str) -> bool:
        answer = own.get(path)
        told = json.loads(answer.body)
        return answer.status == 503 and told["troubles"][0].startswith("tiny:latest has been loading for ")

    # This one's scripted engine waits for ever; the limit is what a load is expected to take.
    body = json.dumps(ASK).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    with serving(loading, load_timeout=0.1) as own, connected(own.port) as client:
        send(client, head.encode() + body)
        for path in ("/health", "/ready"):
            until(lambda path=path: red(path), 20, f"{path} to be red")
        client.close()
        until(lambda: own.get("/health").status == own.get("/ready").status == 200, 20, "both to be well again")


def test_requests_tokens_and_times_are_counted(server):
    server.post("/v1/chat/completions", json.dumps(ASK).encode())
    before = counted(server)
    for _ in range(3):
        usage = json.loads(server.post("/v1/chat/completions", json.dumps(ASK).encode()).body)["usage"]
    after = counted(server)

    def more(name: str, **labels: str) -> float:
        return of(after, name, **labels) - of(before, name, **labels)

    route = "/v1/chat/completions"
    assert more("puna_requests_total", method="POST", route=route, status="200") == 3
    assert more("puna_request_seconds_count", route=route) == 3
    assert more("puna_tokens_total", model="tiny:latest", kind="prompt") == 3 * usage["prompt_tokens"]
    assert more("puna_tokens_total", model="tiny:latest", kind="completion") == 3 * usage["completion_tokens"]
    assert more("puna_wait_seconds_count", model="tiny:latest") == 3
    assert more("puna_first_token_seconds_count", model="tiny:latest") == 3
    assert of(after, "puna_loads_total", model="tiny:latest", engine="scripted", outcome="ok") >= 1
    assert of(after, "puna_model_memory_bytes", model="tiny:latest", engine="scripted") >= 0
    assert of(after, "puna_requests_waiting") == 0


def test_errors_are_counted_by_their_codes(server):
    before = counted(server)
    server.post("/v1/chat/completions", json.dumps(ASK | {"temperature": 9}).encode())
    server.post("/v1/chat/completions", json.dumps(ASK | {"model": "nobody"}).encode())
    server.get("/v1/nothing")
    server.request("DELETE", "/v1/models")
    after = counted(server)
    new = {key for key, value in after.items() if key[0] == "puna_errors_total" and value > before.get(key, 0)}
    assert {dict(labels)["code"] for _, labels in new} == {
        "decimal_above_max_value", "model_not_found", "unknown_url", "method_not_supported",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/api/blobs/sha256:" + "0" * 64, "/v1/models/what/ever"])
def test_no_label_is_a_clients_word(server, path):
    server.get(path)
    server.request("BREW", "/nowhere")
    labels = {value for _, labels in counted(server) for _, value in labels}
    assert not [label for label in labels if any(word in label for word in ("nowhere", "0000", "what", "BREW"))]


def test_the_log_can_be_json():
    code = (
        "import structlog; from puna.server.log import configure_logging\n"
        "configure_logging(debug=False, form='json')\n"
        "log = structlog.get_logger()\n"
        "log.info('request', path='a\\nb', ms=1.5)\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: log.exception('failed')\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stderr
    first, second = map(json.loads, said.splitlines())
    assert (first["event"], first["level"], first["path"], first["ms"]) == ("request", "info", "a\nb", 1.5)
    assert "ZeroDivisionError" in second["exception"]
