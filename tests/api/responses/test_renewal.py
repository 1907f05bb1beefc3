"""A response in the background that a server left, by a kill or its end, is made anew by the next: the same events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fakes.response_events import check_events, read_events
from fakes.waiting import until
from puna.server.responses.renewal import TRIES
from puna.state.records import Delete, Put, Query, Record
from puna.state.sqlite import SqliteState

from .test_memory import do, followed, items_of, made

TOKENS = 180
COUNTING: Any = {
    "rules": [
        {
            "when": {"contains": "CALL"},
            "answer": {"tool_calls": [{"name": "get_weather", "arguments": {"city": "x " * TOKENS}}], "delay": 0.005},
        },
        {
            "when": {"contains": "SEED"},
            "answer": {"choices": [{"tokens": [end] * TOKENS, "delay": 0.005} for end in "abc"]},
        },
    ],
    "default": {"thinking": "Hm.", "tokens": [f"{n} " for n in range(TOKENS)], "delay": 0.005},
}
ANOTHER = {"default": {"thinking": "Hm.", "tokens": [f"{n}, " for n in range(TOKENS)]}}
WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def begun(server: Any, events: int, asked: Any = "count", **fields: Any) -> tuple[str, list[dict[str, Any]]]:
    """A background response of which so many events have come, and they."""
    body = {"model": "thinker", "input": asked, "background": True, "stream": True, **fields}
    text = b""
    with server.open("POST", "/v1/responses", body) as answer:
        while text.count(b"\n\n") < events:
            line = answer.readline()
            assert line, text
            text += line
    seen = [event for event in read_events(text) if event["type"] != "error"]
    return seen[0]["response"]["id"], seen


def ended(server: Any, id_: str) -> dict[str, Any]:
    """The response when it has ended; nobody asks for it before."""
    state = server.services.state

    def over() -> bool:
        record = do(server, state.get("response", id_, ""))
        return record.body["response"]["status"] not in {"queued", "in_progress"} and server.busy() == 0

    until(over, 60, "its end")
    response: dict[str, Any] = server.get(f"/v1/responses/{id_}").json
    return response


def killed(directory: Any, id_: str, *, keep: int | None = None, **changed: Any) -> list[dict[str, Any]]:
    """What a server left that has ended becomes what a killed one would have left: its claim is nobody's, its record
    differs by `changed`, and but the first `keep` events were never kept. Gives those that were.
    """

    async def change() -> list[dict[str, Any]]:
        async with SqliteState(directory) as state:
            record = await state.get("response", id_, "")
            assert record is not None
            renewal = {**record.body["renewal"], **changed}
            body = {**record.body, "server": "responses-killed", "renewal": renewal}
            pages = (await state.page("event", "", Query(parent=id_, limit=None, newest_first=False))).records
            events = [event for page in pages for event in page.body["events"]][:keep]
            first = Record(kind="event", id=pages[0].id, owner="", body={"events": events}, created=1, parent=id_)
            gone = [Delete("event", page.id, "") for page in pages]
            await state.apply(
                Put(Record(kind="response", id=id_, owner="", body=body, created=record.created), over=record),
                *gone, Put(first),
            )  # fmt: skip
            return events

    return asyncio.run(change())


@pytest.mark.parametrize("fields", [{}, {"include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"}}])
def test_the_next_server_goes_on(serving, state, fields):
    """Without being asked; who followed it follows on from where the first server's events ended."""
    with serving(state=state, script=COUNTING) as own:
        id_, seen = begun(own, 60, **fields)
    with serving(state=state, script=COUNTING) as own:
        response = ended(own, id_)
        rest = followed(own, id_, starting_after=seen[-1]["sequence_number"])
        assert check_events([*seen, *rest], background=True) == response
        assert (response["status"], response["usage"]["output_tokens"] > TOKENS) == ("completed", True)
        assert followed(own, id_) == [*seen, *rest]
        again = made(own, "and?", previous_response_id=id_, model="thinker", max_output_tokens=1)
        assert again["usage"]["input_tokens"] > TOKENS


def test_whoever_follows_a_server_that_ends_is_told_where_to_go_on(serving, state):
    with serving(state=state, script=COUNTING) as own:
        id_, _ = begun(own, 10)
        stream = own.open("GET", f"/v1/responses/{id_}?stream=true")
        answer = stream.__enter__()
    *events, error = read_events(answer.read())
    stream.__exit__(None, None, None)
    assert (error["type"], error["code"]) == ("error", "server_stopping")
    assert error["sequence_number"] == events[-1]["sequence_number"]
    with serving(state=state, script=COUNTING) as own:
        rest = followed(own, id_, starting_after=error["sequence_number"])
        assert check_events([*events, *rest], background=True)["status"] == "completed"


@pytest.mark.parametrize("keep", [0, 40])
def test_what_a_killed_server_left_is_made_anew(serving, state, keep):
    with serving(state=state, script=COUNTING) as own:
        conversation = own.post("/v1/conversations", {}).json["id"]
        fields = {"conversation": conversation, "model": "tools", "tools": [WEATHER]}
        id_, seen = begun(own, 60, "CALL", **fields)
    assert killed(state, id_, keep=keep) == seen[:keep]
    with serving(state=state, script=COUNTING) as own:
        response = ended(own, id_)
        events = followed(own, id_)
        assert check_events(events, background=True) == response
        assert events[: len(seen)] == seen
        assert [item["type"] for item in items_of(own, conversation)] == ["message", "function_call"]
        assert items_of(own, conversation)[1] == response["output"][0]


def test_an_answer_of_chance_is_the_same_again(serving, state):
    """The script picks one of three by the seed, which nobody gave."""
    with serving(state=state, script=COUNTING) as own:
        left = [begun(own, 12, "SEED")[0] for _ in range(4)]
    with serving(state=state, script=COUNTING) as own:
        assert [ended(own, id_)["status"] for id_ in left] == ["completed"] * 4


@pytest.mark.parametrize(
    "script", [ANOTHER, {"default": {"text": "x", "error": {"after": 0, "message": "out of luck"}}}]
)
def test_another_answer_fails_behind_what_was_told(serving, state, script):
    with serving(state=state, script=COUNTING) as own:
        id_, seen = begun(own, 40)
    killed(state, id_)
    with serving(state=state, script=script) as own:
        response = ended(own, id_)
        events = followed(own, id_)
    assert (response["status"], response["output"]) == ("failed", [])
    assert events[: len(seen)] == seen
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (events[-1]["type"], events[-1]["response"]) == ("response.failed", response)


def test_what_kills_its_server_each_time_is_given_up(serving, state):
    with serving(state=state, script=COUNTING) as own:
        id_, _ = begun(own, 10)
    killed(state, id_, tries=TRIES)
    with serving(state=state, script=COUNTING) as own:
        assert "ended over it" in ended(own, id_)["error"]["message"]
        assert followed(own, id_)[-1]["type"] == "response.failed"


def test_what_an_older_version_left_is_failed(serving, state):
    with serving(state=state, script=COUNTING) as own:
        id_, seen = begun(own, 10)

    async def age() -> None:
        async with SqliteState(state) as kept:
            record = await kept.get("response", id_, "")
            assert record is not None
            body = {name: value for name, value in record.body.items() if name in {"response", "input", "report"}}
            old = Record(kind="response", id=id_, owner="", body=body, created=record.created)
            await kept.apply(Put(old, over=record))

    asyncio.run(age())
    with serving(state=state, script=COUNTING) as own:
        found = own.get(f"/v1/responses/{id_}").json
        assert (found["status"], found["error"]["code"]) == ("failed", "server_error")
        *events, last = followed(own, id_)
        assert events[: len(seen)] == seen
        assert (last["type"], last["response"]) == ("response.failed", found)
        assert followed(own, id_, starting_after=events[-1]["sequence_number"]) == [last]
        assert own.post(f"/v1/responses/{id_}/cancel").json == found


def test_one_whose_time_is_over_is_not_begun(serving, state):
    with serving(state=state, script=COUNTING) as own:
        id_, _ = begun(own, 10)
    killed(state, id_, until=1.0)
    with serving(state=state, script=COUNTING) as own:
        assert "time" in ended(own, id_)["error"]["message"]


def test_one_that_cannot_be_asked_again_says_why(serving, state):
    with serving(state=state, script=COUNTING) as own:
        first = made(own, "SEED", max_output_tokens=1)["id"]
        id_, _ = begun(own, 10, previous_response_id=first)
        own.request("DELETE", f"/v1/responses/{first}")
    killed(state, id_)
    with serving(state=state, script=COUNTING) as own:
        assert first in ended(own, id_)["error"]["message"]


@pytest.mark.parametrize("how", ["cancel", "DELETE"])
def test_it_can_be_ended_however_it_was_left(serving, state, how):
    with serving(state=state, script=COUNTING) as own:
        left = [begun(own, 10)[0] for _ in range(4)]
    for id_ in left:
        killed(state, id_)
    with serving(state=state, script=COUNTING) as own:
        for id_ in reversed(left):
            path = f"/v1/responses/{id_}" + ("/cancel" if how == "cancel" else "")
            until(lambda path=path: own.request("POST" if how == "cancel" else how, path).status == 200, 30, "its end")
            shown = own.get(f"/v1/responses/{id_}")
            assert shown.status == 404 if how == "DELETE" else shown.json["status"] in {"cancelled", "completed"}
        until(lambda: own.busy() == 0, 30, "no work")


def test_another_server_that_is_asked_makes_it_anew(serving, state):
    with serving(state=state, script=COUNTING) as other, serving(state=state, script=COUNTING) as own:
        id_, seen = begun(own, 10)
        own_over = own.post(f"/v1/responses/{id_}/cancel").json
        assert own_over["status"] == "cancelled"
        id_, seen = begun(own, 10)
        record = do(own, own.services.state.get("response", id_, ""))
        assert record.body["work"] == "left"
        assert other.get(f"/v1/responses/{id_}").json["status"] in {"queued", "in_progress"}
        assert ended(own, id_)["status"] == "completed"
        assert followed(other, id_)[: len(seen)] == seen
