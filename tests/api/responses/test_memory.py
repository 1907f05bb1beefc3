"""What is remembered: chains, conversations, references, whose it is, and what becomes of a server that ends."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from api.conftest import SCRIPT, run_server
from fakes.projectors import plain
from fakes.response_events import check_events, read_events
from fakes.waiting import until
from puna.errors import StateError
from puna.server.kept_files import new_file
from puna.server.responses.conversations import conversation_routes
from puna.server.responses.ids import response_of
from puna.server.responses.routes import response_routes
from puna.settings import Settings
from puna.state.records import Put, Record

RAIN = {"type": "function_call_output", "output": "rain"}
WEATHER = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}


def respond(server: Any, asked: Any = "Hi", *, key: str = "", **fields: Any) -> Any:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = {"model": "tiny", "input": asked, **fields}
    return server.post("/v1/responses", body, headers=headers)


def made(server: Any, asked: Any = "Hi", **fields: Any) -> dict[str, Any]:
    answer = respond(server, asked, **fields)
    assert answer.status == 200, answer.body
    response: dict[str, Any] = answer.json
    return response


def text(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


def do(server: Any, work: Any) -> Any:
    """Await `work` where the server runs."""
    return asyncio.run_coroutine_threadsafe(work, server.loop).result(30)


def followed(server: Any, id_: str, **parameters: Any) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in {"stream": "true", **parameters}.items())
    answer = server.get(f"/v1/responses/{id_}?{query}")
    assert answer.status == 200, answer.body
    return read_events(answer.body)


# ------------------------------------------------------------------------------------------------------------- the disk


@pytest.fixture
def full(serving, tmp_path, monkeypatch):
    """A server on whose disk nothing more can be kept."""
    with serving(state=tmp_path / "state") as own:
        kept = made(own)
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
        yield own, kept


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "Hi", "store": True}),
        ("/v1/responses", {"input": "Hi", "store": True, "stream": True}),
        ("/v1/responses", {"input": "Hi", "background": True}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "store": True}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "store": True, "stream": True}),
    ],
)
def test_what_is_to_be_stored_on_a_full_disk_is_refused_before_it_is_made(full, path, body):
    server, _ = full

    def computed() -> list[bytes]:
        return [line for line in server.get("/metrics").body.splitlines() if line.startswith(b"puna_tokens_total")]

    before = computed()
    refused = server.post(path, {"model": "tiny", **body})
    assert (refused.status, refused.json["error"]["code"]) == (500, "disk_full")
    assert computed() == before != []


@pytest.mark.parametrize("stream", [False, True])
def test_what_nobody_asked_to_store_is_answered_on_a_full_disk_and_says_that_it_is_not_stored(full, stream):
    server, kept = full
    answer = respond(server, stream=stream, previous_response_id=kept["id"])
    assert answer.status == 200, answer.body
    response = check_events(read_events(answer.body)) if stream else answer.json
    assert (response["status"], response["store"]) == ("completed", False)
    assert server.get(f"/v1/responses/{response['id']}").status == 404
    assert server.get(f"/v1/responses/{kept['id']}").json["store"] is True


@pytest.mark.parametrize(("fields", "status"), [({}, 200), ({"store": True}, 500)])
def test_a_disk_that_is_full_before_the_answer_ends(serving, tmp_path, monkeypatch, fields, status):
    with serving(state=tmp_path / "state") as own:

        async def fail(*_: Any) -> None:
            raise StateError("no space left", code="disk_full")

        monkeypatch.setattr(own.services.state, "apply", fail)
        answer = respond(own, **fields)
        assert answer.status == status
        if status == 200:
            assert answer.json["store"] is False
        else:
            assert answer.json["error"]["code"] == "disk_full"


# --------------------------------------------------------------------------------------------------------------- chains


def test_a_chain_is_the_conversation_sent_whole(server):
    """With tools, and with every other answer streamed."""
    whole: list[Any] = []
    previous: dict[str, Any] = {}
    for turn in range(4):
        asked: list[Any] = [{"role": "user", "content": f"CALL {turn}" if turn % 2 == 0 else f"Turn {turn}"}]
        calls = [item for item in whole[-1:] if item["type"] == "function_call"]
        asked = [
            {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"} for call in calls
        ] + asked
        goes_on = {"previous_response_id": previous["id"]} if previous else {}
        fields = {"model": "tools", "tools": [WEATHER], **goes_on}
        if turn % 2:
            previous = check_events(read_events(respond(server, asked, stream=True, **fields).body))
        else:
            previous = made(server, asked, **fields)
        whole += [*asked, *previous["output"]]
    last = [{"role": "user", "content": "PROMPT"}]
    chained = made(server, last, model="tools", tools=[WEATHER], previous_response_id=previous["id"])
    sent = made(server, [*whole, *last], model="tools", tools=[WEATHER], store=False)
    assert chained["usage"]["input_tokens"] == sent["usage"]["input_tokens"]
    assert text(chained) == text(sent)


def test_instructions_are_not_inherited(server):
    first = made(server, "One", instructions="Be brief.")
    assert "Be brief." not in text(made(server, "PROMPT", previous_response_id=first["id"]))
    again = text(made(server, "PROMPT", previous_response_id=first["id"], instructions="Be long."))
    assert again.index("Be long.") < again.index("One") < again.index("PROMPT")


def test_a_chain_may_branch(server):
    first = made(server, "One")
    left, right = (made(server, name, previous_response_id=first["id"]) for name in ("Left", "Right"))
    shown = text(made(server, "PROMPT", previous_response_id=left["id"]))
    assert "Left" in shown
    assert "Right" not in shown
    assert right["previous_response_id"] == first["id"]


@pytest.mark.parametrize("gone", [0, 1])
def test_a_chain_that_lacks_one_is_refused(server, gone):
    first = made(server, "One")
    second = made(server, "Two", previous_response_id=first["id"])
    assert server.request("DELETE", f"/v1/responses/{[first, second][gone]['id']}").json == {
        "id": [first, second][gone]["id"],
        "object": "response",
        "deleted": True,
    }
    error = respond(server, "Three", previous_response_id=second["id"])
    assert (error.status, error.error["code"]) == (400, "previous_response_not_found")
    assert [first, second][gone]["id"] in error.error["message"]


def test_what_is_not_stored_is_not_there(server):
    unkept = made(server, store=False)
    assert unkept["store"] is False
    assert server.get(f"/v1/responses/{unkept['id']}").status == 404
    assert respond(server, previous_response_id=unkept["id"]).error["code"] == "previous_response_not_found"


def test_a_cut_and_a_failed_answer_are_stored_as_they_are(server):
    cut = made(server, max_output_tokens=2)
    assert server.get(f"/v1/responses/{cut['id']}").json == cut
    failed = check_events(read_events(respond(server, "DIE LATE", stream=True).body))
    assert server.get(f"/v1/responses/{failed['id']}").json == failed
    assert failed["status"] == "failed"


def test_a_response_is_there_when_its_end_is_told(server):
    with server.open("POST", "/v1/responses", {"model": "tiny", "input": "Hi", "stream": True}) as answer:
        for line in answer:
            if line.startswith(b"event: response.completed"):
                id_ = json.loads(answer.readline().removeprefix(b"data: "))["response"]["id"]
                assert server.get(f"/v1/responses/{id_}").status == 200
                break
        else:
            pytest.fail("no end")


def test_what_had_no_effect_is_told_again(server):
    first = respond(server, user="me", frobnicate=1)
    again = server.get(f"/v1/responses/{first.json['id']}")
    assert again.headers["x-puna-ignored"] == first.headers["x-puna-ignored"] == "user, frobnicate"
    more = server.get(f"/v1/responses/{first.json['id']}?odd=1&include_obfuscation=true")
    assert more.headers["x-puna-ignored"] == "odd, include_obfuscation, user, frobnicate"


def test_input_items_in_pages(server):
    response = made(server, [{"role": "user", "content": f"{n}"} for n in range(5)])
    path = f"/v1/responses/{response['id']}/input_items"

    def page(**query: Any) -> dict[str, Any]:
        shown: dict[str, Any] = server.get(f"{path}?" + "&".join(f"{k}={v}" for k, v in query.items())).json
        return shown

    def contents(shown: dict[str, Any]) -> str:
        return "".join(item["content"][0]["text"] for item in shown["data"])

    assert contents(page()) == "43210"
    first = page(order="asc", limit=2)
    assert (contents(first), first["has_more"]) == ("01", True)
    rest = page(order="asc", after=first["last_id"])
    assert (contents(rest), rest["has_more"]) == ("234", False)
    before = page(order="asc", limit=2, before=rest["last_id"])
    assert (contents(before), before["has_more"]) == ("23", True)
    assert server.get(f"{path}?after=msg_x").status == 404
    assert server.get(f"{path}?limit=0").error["param"] == "limit"
    assert server.get(f"{path}?include=x").error["param"] == "include"


def test_the_seal_of_a_stored_thought_is_included_when_it_is_asked_for(server):
    response = made(server, "THINK", model="thinker")
    plain_ = server.get(f"/v1/responses/{response['id']}").json["output"][0]
    sealed = server.get(f"/v1/responses/{response['id']}?include[]=reasoning.encrypted_content").json["output"][0]
    assert "encrypted_content" not in plain_
    assert sealed["encrypted_content"]


# ----------------------------------------------------------------------------------------------------------- references


def test_references_lead_to_what_is_stored(server):
    other = made(server, "THINK", model="thinker")
    reference = {"type": "item_reference", "id": other["output"][1]["id"]}
    assert response_of(reference["id"]) == other["id"]
    assert "Forty-two." in text(made(server, [reference, {"role": "user", "content": "PROMPT"}]))
    conversation = server.post("/v1/conversations", {"items": [{"role": "user", "content": "Once"}]}).json
    [item] = server.get(f"/v1/conversations/{conversation['id']}/items").json["data"]
    assert "Once" in text(made(server, [{"id": item["id"]}, {"role": "user", "content": "PROMPT"}]))
    copied = server.post("/v1/conversations", {"items": [reference]}).json
    [copy] = server.get(f"/v1/conversations/{copied['id']}/items").json["data"]
    assert copy["content"][0]["text"] == "Forty-two."
    assert copy["id"] != reference["id"]


def test_kept_files_are_read(server):
    async def keep(data: bytes, name: str) -> str:
        async def chunks() -> Any:
            yield data

        state = server.services.state
        record = new_file("", await state.contents.add(chunks(), most=10**6), filename=name, purpose="user_data")
        await state.apply(Put(record))
        return record.id

    file = {"type": "input_file", "file_id": do(server, keep(b"PROMPT of a file", "a.txt"))}
    assert "a.txt:\nPROMPT of a file" in text(made(server, [{"role": "user", "content": [file]}]))
    image = {"type": "input_image", "file_id": do(server, keep(plain((200, 0, 0), 4, 4), "a.png"))}
    assert made(server, [{"role": "user", "content": [image]}], model="vision")
    gone = respond(server, [{"role": "user", "content": [{"type": "input_file", "file_id": "file-gone"}]}])
    assert (gone.status, gone.error["param"]) == (404, "input[0].content[0].file_id")
    both = {**file, "file_data": f"data:text/plain;base64,{base64.b64encode(b'x').decode()}"}
    assert respond(server, [{"role": "user", "content": [both]}]).error["param"] == "input[0].content[0].file_id"


class Text(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"PROMPT from afar")

    def log_message(self, *_: object) -> None:
        pass


def test_files_are_fetched(serving):
    with ThreadingHTTPServer(("127.0.0.1", 0), Text) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever).start()
        url = f"http://127.0.0.1:{elsewhere.server_port}/a.txt"
        asked = [{"role": "user", "content": [{"type": "input_file", "file_url": url}]}]
        with serving(fetch_private=True) as own:
            assert "a.txt:\nPROMPT from afar" in text(made(own, asked))
        elsewhere.shutdown()


# -------------------------------------------------------------------------------------------------------- conversations


def items_of(server: Any, id_: str) -> list[Any]:
    items: list[Any] = server.get(f"/v1/conversations/{id_}/items?order=asc&limit=100").json["data"]
    return items


def test_a_conversation_gains_input_and_output(server):
    id_ = server.post("/v1/conversations", {}).json["id"]
    first = made(server, "One", conversation=id_)
    second = made(server, "PROMPT", conversation={"id": id_}, store=False)
    assert first["conversation"] == second["conversation"] == {"id": id_}
    assert text(second).index("One") < text(second).index("Hello there") < text(second).index("PROMPT")
    items = items_of(server, id_)
    assert [item["role"] for item in items] == ["user", "assistant", "user", "assistant"]
    assert items[1] == first["output"][0]
    assert len({item["id"] for item in items}) == 4


def test_a_failed_answer_adds_nothing(server):
    id_ = server.post("/v1/conversations", {}).json["id"]
    respond(server, "DIE LATE", conversation=id_, stream=True)
    assert respond(server, "DIE FIRST", conversation=id_).status == 500
    assert items_of(server, id_) == []


def test_items_from_elsewhere_are_copies(server):
    one, two = (server.post("/v1/conversations", {}).json["id"] for _ in range(2))
    first = made(server, "One", conversation=one)
    made(server, [*first["output"], {"role": "user", "content": "Two"}], conversation=two)
    assert [item["role"] for item in items_of(server, two)] == ["assistant", "user", "assistant"]
    assert len(items_of(server, one)) == 2
    server.request("DELETE", f"/v1/conversations/{two}")
    assert len(items_of(server, one)) == 2


def test_two_pasts_are_one_too_many(server):
    id_ = server.post("/v1/conversations", {}).json["id"]
    error = respond(server, conversation=id_, previous_response_id=made(server)["id"]).error
    assert error["param"] == "previous_response_id"


def test_metadata_of_a_conversation_is_taken_away_by_null(server):
    id_ = server.post("/v1/conversations", {"metadata": {"a": "b"}}).json["id"]
    for metadata, left in (({"c": "d"}, {"c": "d"}), (None, {})):
        changed = server.post(f"/v1/conversations/{id_}", {"metadata": metadata})
        assert (changed.status, changed.json["metadata"]) == (200, left)
    assert server.get(f"/v1/conversations/{id_}").json["metadata"] == {}


def test_a_conversation_that_is_gone(server):
    for path in ("/v1/responses", "/v1/responses/input_tokens"):
        gone = server.post(path, {"model": "tiny", "input": "Hi", "conversation": "conv_gone"})
        assert (gone.status, gone.error["param"]) == (404, "conversation")
    id_ = server.post("/v1/conversations", {}).json["id"]
    body = {"model": "tiny", "input": "FOREVER", "conversation": id_, "stream": True, "max_output_tokens": 30}
    with server.open("POST", "/v1/responses", body) as answer:
        server.request("DELETE", f"/v1/conversations/{id_}")
        failed = check_events(read_events(answer.read()))
    assert (failed["status"], items_of_gone(server, id_)) == ("failed", 404)


@pytest.mark.parametrize("manner", ["stream", "background", "whole"])
def test_one_response_at_a_time_in_a_conversation(server, manner):
    """The second would answer without the first. What is refused is tried again by agents, and then works."""
    id_ = server.post("/v1/conversations", {}).json["id"]
    held = {"model": "tiny", "input": "FOREVER", "conversation": id_, "max_output_tokens": 80}
    item = {"items": [{"role": "user", "content": "more"}]}
    with ThreadPoolExecutor(1) as pool:
        fields = {"stream": manner != "whole", "background": manner == "background"}
        first = pool.submit(server.post, "/v1/responses", {**held, **fields})
        until(lambda: server.busy() == 1, 30, "the first to begin")
        for refused in (
            respond(server, conversation=id_),
            respond(server, conversation=id_, stream=True),
            respond(server, conversation=id_, background=True),
            server.post(f"/v1/conversations/{id_}/items", item),
        ):
            assert (refused.status, refused.error["code"]) == (400, "conversation_locked")
            assert refused.error["param"] == "conversation"
        assert respond(server).status == 200
        assert first.result().status == 200
    assert len(items_of(server, id_)) == 2
    assert respond(server, conversation=id_, max_output_tokens=1).status == 200
    assert server.post(f"/v1/conversations/{id_}/items", item).status == 200


def test_whatever_ends_a_response_lets_others_into_its_conversation(server):
    id_ = server.post("/v1/conversations", {}).json["id"]

    def free(how: str) -> None:
        until(lambda: respond(server, conversation=id_, max_output_tokens=1).status == 200, 30, f"room after {how}")

    assert respond(server, conversation=id_, model="no/such").status == 404
    free("a model that is not there")
    assert respond(server, "DIE FIRST", conversation=id_).status == 500
    free("a runner that died first")
    check_events(read_events(respond(server, "DIE LATE", conversation=id_, stream=True).body))
    free("a runner that died late")
    with server.open(
        "POST", "/v1/responses", {"model": "tiny", "input": "FOREVER", "conversation": id_, "stream": True}
    ):
        pass
    free("a client that went away")
    with server.open("POST", "/v1/responses", {"model": "tiny", "input": "SLOW", "conversation": id_, "stream": True}):
        pass
    free("a client that went away before the first event")
    background = made(server, "FOREVER", conversation=id_, background=True)["id"]
    server.post(f"/v1/responses/{background}/cancel")
    free("a cancellation")
    background = made(server, "FOREVER", conversation=id_, background=True)["id"]
    server.request("DELETE", f"/v1/responses/{background}")
    free("a deletion")


def test_of_many_at_once_each_is_whole_and_knows_those_before(server):
    """Those that are let in are one behind the other: none is without what came before it."""
    id_ = server.post("/v1/conversations", {}).json["id"]

    def ask(number: int) -> int:
        answer = respond(server, f"Number {number}", conversation=id_)
        assert answer.status == 200 or answer.error["code"] == "conversation_locked", answer.body
        return answer.status

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(24)))
    roles = [item["role"] for item in server.get(f"/v1/conversations/{id_}/items?limit=100&order=asc").json["data"]]
    assert roles == ["user", "assistant"] * statuses.count(200)


def test_one_response_at_a_time_on_all_servers_of_a_state(serving, tmp_path):
    with serving(state=tmp_path / "state") as other:
        id_ = other.post("/v1/conversations", {}).json["id"]
        with serving(state=tmp_path / "state") as one:
            background = made(one, "FOREVER", conversation=id_, background=True)["id"]
            refused = respond(other, conversation=id_)
            assert (refused.status, refused.error["code"]) == (400, "conversation_locked")
            one.post(f"/v1/responses/{background}/cancel")
            assert respond(other, conversation=id_, max_output_tokens=1).status == 200
        left = Record(
            kind="hold", id=f"hold_{id_[5:]}", owner="", body={"server": "responses-gone"}, created=1, parent=id_
        )
        do(other, other.services.state.apply(Put(left)))
        assert respond(other, conversation=id_).status == 200  # of a server that was killed


def items_of_gone(server: Any, id_: str) -> int:
    status: int = server.get(f"/v1/conversations/{id_}/items").status
    return status


# ----------------------------------------------------------------------------------------------------------- background


def test_events_of_the_background_are_in_order_and_can_be_followed_from_any(server):
    id_ = made(server, "THINK", model="thinker", background=True)["id"]
    events = followed(server, id_)
    assert check_events(events, background=True)["background"] is True
    for after in range(-1, len(events)):
        assert followed(server, id_, starting_after=max(after, 0)) == events[max(after, 0) + 1 :]
    assert server.get(f"/v1/responses/{id_}").json == events[-1]["response"]


def test_many_events_are_kept_in_order(serving):
    """As many as are written at once, and more."""
    with serving(script={"default": {"tokens": [f"{n} " for n in range(200)]}}) as own:
        id_ = made(own, background=True)["id"]
        live = followed(own, id_)
        assert followed(own, id_) == live
        assert check_events(live, background=True)["usage"]["output_tokens"] == 200


def test_a_stream_in_the_background_goes_on_without_its_client(server):
    with server.open(
        "POST", "/v1/responses", {"model": "tiny", "input": "SLOW", "background": True, "stream": True}
    ) as answer:
        first = json.loads(answer.read1().split(b"data: ", 1)[1].split(b"\n", 1)[0])
    events = followed(server, first["response"]["id"])
    assert text(check_events(events, background=True)) == "at last"


def test_a_deadline_holds_in_the_background_too(server):
    body = {"model": "tiny", "input": "FOREVER", "background": True}
    id_ = server.post("/v1/responses", body, headers={"x-puna-deadline": "0.5"}).json["id"]
    failed = check_events(followed(server, id_), background=True)
    assert failed["status"] == "failed"
    assert "time that this request may take is over" in failed["error"]["message"]


def test_a_fault_in_the_background_is_told(server):
    id_ = made(server, "DIE FIRST", background=True)["id"]
    assert check_events(followed(server, id_), background=True)["error"]["code"] == "server_error"
    long = made(server, "word " * 2000, background=True)["id"]
    failed = followed(server, long)[-1]["response"]
    assert (failed["status"], failed["error"]["code"], failed["error"]["param"]) == (
        "failed",
        "invalid_prompt",
        "input",
    )


def test_cancelling_frees_the_slot_and_keeps_what_was_there(server):
    id_ = made(server, "FOREVER", background=True)["id"]
    with server.open("GET", f"/v1/responses/{id_}?stream=true") as answer:
        while b"output_text.delta" not in answer.readline():
            pass
        cancelled = server.post(f"/v1/responses/{id_}/cancel").json
        last = read_events(b"event: " + answer.read().rpartition(b"event: ")[2])[-1]
    assert cancelled["status"] == "cancelled"
    assert last["type"] == "response.incomplete"
    assert last["response"] == cancelled == server.get(f"/v1/responses/{id_}").json
    assert text(cancelled).startswith("on")
    assert server.busy() == 0


def test_only_the_background_is_followed_and_cancelled(server):
    id_ = made(server)["id"]
    assert server.get(f"/v1/responses/{id_}?stream=true").error["param"] == "stream"
    assert server.post(f"/v1/responses/{id_}/cancel").status == 400
    assert server.get(f"/v1/responses/{id_}?starting_after=3").error["param"] == "starting_after"
    for after, code in ((-1, "integer_below_min_value"), ("x", "invalid_type"), (1.5, "invalid_type")):
        assert server.get(f"/v1/responses/{id_}?stream=true&starting_after={after}").error["code"] == code
    assert server.get(f"/v1/responses/{id_}?stream=maybe").error["param"] == "stream"


def test_deleting_ends_it(server):
    id_ = made(server, "FOREVER", background=True)["id"]
    assert respond(server, previous_response_id=id_).error["param"] == "previous_response_id"
    assert server.request("DELETE", f"/v1/responses/{id_}").json["deleted"]
    assert server.get(f"/v1/responses/{id_}").status == 404
    assert server.busy() == 0


def test_however_often_it_is_ended_it_ends_once(server):
    """By many at once, at every moment: before it has begun, and while its end is kept."""

    def race(moment: int) -> None:
        id_ = made(server, ("FOREVER", "SLOW", "Hi")[moment % 3], background=True)["id"]
        moments = ["POST /cancel", "DELETE ", "POST /cancel", "DELETE ", "POST /cancel"]
        with ThreadPoolExecutor(len(moments)) as pool:
            asked = [one.split(" ") for one in moments[moment % 2 :]]
            for answer in pool.map(lambda one: server.request(one[0], f"/v1/responses/{id_}{one[1]}"), asked):
                assert answer.status in {200, 404}
        assert server.get(f"/v1/responses/{id_}").status == 404

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(race, range(40)))
    assert server.busy() == 0
    do(server, server.services.ending.idle())


def test_what_goes_on_while_it_has_to_make_room_is_whole_at_its_end(serving, tmp_path):
    script = {"rules": [{"when": {"contains": "Hi"}, "answer": {"text": "Ho"}}], "default": {
        "tokens": [f"{n} " for n in range(200)], "delay": 0.01,
    }}  # fmt: skip
    with serving(state=tmp_path / "state", state_records=6, script=script) as own:
        id_ = made(own, "count", background=True)["id"]
        for _ in range(20):
            made(own)
        live = followed(own, id_)
        assert check_events(live, background=True)["status"] == "completed"
        assert followed(own, id_) == live
        assert own.get(f"/v1/responses/{id_}").json == live[-1]["response"]


def test_what_another_server_works_on_is_not_failed(serving, tmp_path):
    with serving(state=tmp_path / "state") as one, serving(state=tmp_path / "state") as other:
        id_ = made(one, "FOREVER", background=True)["id"]
        assert other.get(f"/v1/responses/{id_}").json["status"] in {"queued", "in_progress"}
        for method, path in (("GET", "?stream=true"), ("POST", "/cancel"), ("DELETE", "")):
            assert other.request(method, f"/v1/responses/{id_}{path}").status == 409
        assert one.post(f"/v1/responses/{id_}/cancel").json["status"] == "cancelled"
        events = followed(one, id_)
        assert followed(other, id_) == events
        assert other.get(f"/v1/responses/{id_}").json == events[-1]["response"]


def test_a_server_that_stops_says_so(serving, tmp_path):
    with serving(state=tmp_path / "state") as own:
        stream = own.open("POST", "/v1/responses", {"model": "tiny", "input": "FOREVER", "stream": True})
        answer = stream.__enter__()
    events = read_events(answer.read())
    stream.__exit__(None, None, None)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (events[-1]["type"], events[-1]["code"]) == ("error", "server_stopping")


# ---------------------------------------------------------------------------------------------------------- whose it is

OURS, THEIRS = "ours", "theirs"


@pytest.fixture(scope="module")
def shared(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of two callers."""
    state = tmp_path_factory.mktemp("state")
    with run_server(replace(settings, api_keys=(OURS, THEIRS), state=state), SCRIPT) as server:
        yield server


def as_caller(server: Any, method: str, path: str, body: Any = None, *, key: str) -> Any:
    return server.request(method, path, body, headers={"authorization": f"Bearer {key}"})


def routes() -> list[Any]:
    """Every method of every path that names an object."""
    nothing: Any = SimpleNamespace(
        state=None, ending=None, settings=SimpleNamespace(strict=False), library=None, inference=None
    )
    found = [*response_routes(nothing, nothing, nothing), *conversation_routes(nothing, nothing)]
    return [
        pytest.param(method, route.path, id=f"{method} {route.path}")
        for route in found
        for method in sorted((route.methods or set()) - {"HEAD"})
        if "{" in route.path
    ]


BODIES: dict[str, Any] = {
    "/v1/conversations/{id}": {"metadata": {"a": "b"}},
    "/v1/conversations/{id}/items": {"items": [{"role": "user", "content": "x"}]},
}


@pytest.mark.parametrize(("method", "path"), routes())
def test_objects_of_one_key_are_not_there_for_another(shared, method, path):
    if path.startswith("/v1/responses"):
        id_ = respond(shared, background=True, key=OURS).json["id"]
        item = "x"
    else:
        first = {"items": [{"role": "user", "content": "x"}]}
        id_ = as_caller(shared, "POST", "/v1/conversations", first, key=OURS).json["id"]
        item = as_caller(shared, "GET", f"/v1/conversations/{id_}/items", key=OURS).json["data"][0]["id"]
    filled = path.replace("{id}", id_).replace("{item}", item)
    answer = as_caller(shared, method, filled, BODIES.get(path) if method == "POST" else None, key=THEIRS)
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert as_caller(shared, method, filled, BODIES.get(path) if method == "POST" else None, key=OURS).status == 200


def test_nothing_of_another_is_gone_on_from(shared):
    theirs = respond(shared, "THINK", key=THEIRS).json
    error = respond(shared, key=OURS, previous_response_id=theirs["id"]).error
    assert error["code"] == "previous_response_not_found"
    assert respond(shared, [{"id": theirs["output"][0]["id"]}], key=OURS).status == 404
    conversation = as_caller(shared, "POST", "/v1/conversations", {}, key=THEIRS).json["id"]
    assert respond(shared, key=OURS, conversation=conversation).status == 404


def test_a_server_that_keeps_nothing(serving):
    with serving(state="off") as own:
        assert made(own)["store"] is False
        assert respond(own, store=True).error["param"] == "store"
        assert respond(own, background=True).error["param"] == "background"
        assert respond(own, previous_response_id="resp_x").error["code"] == "previous_response_not_found"
        assert own.get("/v1/responses/resp_x").status == 404
        assert own.post("/v1/conversations", {}).status == 400
