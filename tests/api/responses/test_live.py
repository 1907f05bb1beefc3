"""Responses over a WebSocket, by the `openai` package's own connection and by `websockets` itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from fakes.response_events import ENDS, check_events
from fakes.waiting import until

WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}


@pytest.fixture
def line(server: Any) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{server.port}/v1/responses", proxy=None) as connection:
        yield connection


def told(line: ClientConnection, **fields: Any) -> list[dict[str, Any]]:
    """The events of one response, or the one that says what is wrong."""
    line.send(json.dumps({"type": "response.create", "model": "tiny", "input": "Hi", **fields}))
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] not in {*ENDS, "error"}:
        events.append(json.loads(line.recv(timeout=30)))
    return events


def text(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content", []))


def test_the_package_connects(openai: OpenAI):
    with openai.responses.connect() as connection:
        for asked in ("Hi", "THINK"):
            connection.send({"type": "response.create", "model": "thinker", "input": asked})  # type: ignore[arg-type]
            for event in connection:
                if event.type == "response.completed":
                    break
            assert event.response.output_text in {"Hello there, friend.", "Forty-two."}


def test_many_responses_of_one_connection(server, line):
    first = check_events(told(line))
    second = check_events(told(line, input="PROMPT", previous_response_id=first["id"]))
    assert "Hello there, friend." in text(second)
    assert server.get(f"/v1/responses/{second['id']}").json == second


def test_the_connection_remembers_what_the_server_does_not(line):
    first = check_events(told(line, input="One", store=False))
    second = check_events(told(line, input="Two", store=False, previous_response_id=first["id"]))
    third = check_events(told(line, input="PROMPT", store=False, previous_response_id=second["id"]))
    shown = text(third)
    assert shown.index("One") < shown.index("Two") < shown.index("PROMPT")
    [gone] = told(line, store=False, previous_response_id=first["id"])
    assert gone["error"]["code"] == "previous_response_not_found"
    [stored] = told(line, previous_response_id=third["id"])
    assert stored["error"]["param"] == "store"


@pytest.mark.parametrize("kept", [True, False])
def test_a_prompt_is_read_before_it_is_needed(server, line, kept):
    warm = check_events(told(line, input="A long beginning.", generate=False, store=kept))
    assert (warm["status"], warm["output"], warm["usage"]["output_tokens"]) == ("completed", [], 0)
    last = check_events(told(line, input="PROMPT", previous_response_id=warm["id"], store=kept))
    assert "A long beginning." in text(last)
    assert last["usage"]["input_tokens_details"]["cached_tokens"] >= warm["usage"]["input_tokens"] - 16
    assert server.get(f"/v1/responses/{warm['id']}").status == (200 if kept else 404)


def test_a_tool_loop(line):
    first = check_events(told(line, model="tools", input="CALL", tools=[WEATHER], store=False))
    result = [{"type": "function_call_output", "call_id": first["output"][0]["call_id"], "output": "RESULT"}]
    last = told(line, model="tools", input=result, tools=[WEATHER], store=False, previous_response_id=first["id"])
    assert text(check_events(last)) == "It is sunny."


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"type": "response.steer"}, "type"),
        ({"model": "tiny"}, "type"),
        ({"type": "response.create"}, "model"),
        ({"type": "response.create", "model": "tiny", "input": "x", "background": True}, "background"),
        ({"type": "response.create", "model": "nope", "input": "x"}, "model"),
        ({"type": "response.create", "model": "tiny", "input": "x", "stream": "no"}, "stream"),
        ({"type": "response.create", "model": "tiny", "input": "x", "generate": 0}, "generate"),
        ([], None),
        ("no JSON", None),
    ],
)
def test_what_is_wrong_is_told_and_the_next_is_served(line, message, param):
    line.send(message if message == "no JSON" else json.dumps(message))
    wrong = json.loads(line.recv(timeout=30))
    assert (wrong["type"], wrong["error"]["param"]) == ("error", param)
    assert wrong["status"] in {400, 404}
    assert check_events(told(line))["status"] == "completed"


def test_what_has_no_effect_is_told_at_the_end(line):
    assert told(line, user="me", frobnicate=1)[-1]["report"] == {"x-puna-ignored": "user, frobnicate"}
    assert told(line, stream=False)[-1]["report"] == {"x-puna-ignored": "stream"}
    for stream in ({}, {"stream": None}, {"stream": True}):
        assert "report" not in told(line, **stream)[-1]


def test_events_say_the_stream_they_are_of(line):
    assert {event["stream_id"] for event in told(line, stream_id="one")} == {"one"}


def test_a_message_in_pieces_and_pings_between(line):
    body = json.dumps({"type": "response.create", "model": "tiny", "input": "Hi"})
    line.send(iter([body[:10], body[10:20], body[20:]]))
    assert json.loads(line.recv(timeout=30))["type"] == "response.created"
    assert line.ping().wait(30)


def test_a_message_that_is_not_text_ends_it(line):
    line.send(b"\x00")
    with pytest.raises(ConnectionClosed):
        line.recv(timeout=30)
    assert line.close_code == 1003


def test_a_client_that_goes_away_ends_the_work(server):
    with connect(f"ws://127.0.0.1:{server.port}/v1/responses", proxy=None) as line:
        line.send(json.dumps({"type": "response.create", "model": "tiny", "input": "FOREVER"}))
        while json.loads(line.recv(timeout=30))["type"] != "response.output_text.delta":
            pass
        assert server.busy() == 1
    until(lambda: server.busy() == 0, 30, "the slot to be free")


def test_what_requests_must_bring_connections_must_bring(serving):
    with serving(api_keys=("right",)) as own:
        url = f"ws://127.0.0.1:{own.port}/v1/responses"
        with pytest.raises(InvalidStatus) as refused:
            connect(url, proxy=None)
        assert refused.value.response.status_code == 401
        with pytest.raises(InvalidStatus) as foreign:
            connect(url, proxy=None, origin="http://evil.example", additional_headers={"x-api-key": "right"})  # type: ignore[arg-type]
        assert foreign.value.response.status_code == 403
        with connect(url, proxy=None, additional_headers={"authorization": "Bearer right"}) as line:
            assert check_events(told(line))["status"] == "completed"


def test_a_request_that_offers_nothing(server):
    answer = server.get("/v1/responses")
    assert (answer.status, answer.error["code"]) == (405, "method_not_supported")
    half = server.get("/v1/responses", headers={"upgrade": "websocket", "connection": "upgrade"})
    assert (half.status, half.error["code"]) == (400, "invalid_http")


def test_a_message_over_the_limit_ends_it(serving):
    with serving(max_body=5000) as own, connect(f"ws://127.0.0.1:{own.port}/v1/responses", proxy=None) as line:
        for _ in range(3):
            assert check_events(told(line, input="x" * 2000))["status"] == "completed"
        line.send("x" * 6000)
        with pytest.raises(ConnectionClosed):
            line.recv(timeout=30)
        assert line.close_code == 1009


def test_a_server_that_stops_says_so(serving):
    with serving() as own:
        line = connect(f"ws://127.0.0.1:{own.port}/v1/responses", proxy=None)
        assert check_events(told(line))["status"] == "completed"
    assert json.loads(line.recv(timeout=30))["error"]["code"] == "server_stopping"
    with pytest.raises(ConnectionClosed):
        line.recv(timeout=30)
    assert line.close_code == 1001
