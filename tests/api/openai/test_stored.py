"""Stored chats: kept when asked, in pages both ways, found by metadata and model, changed, removed; each key's own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

HI: Any = [{"role": "user", "content": "Hi"}]
KEYS = ("key-of-one", "key-of-another")


@pytest.fixture(scope="module")
def keyed(serving, tmp_path_factory) -> Iterator[Any]:
    state = tmp_path_factory.mktemp("stored") / "objects"
    with serving(api_keys=KEYS, state=state) as server:
        yield server


@pytest.fixture
def client(keyed) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{keyed.url}/v1", api_key=KEYS[0], max_retries=0) as client:
        yield client
        for chat in client.chat.completions.list():
            client.chat.completions.delete(chat.id)


def stored(client: OpenAI, text: str = "Hi", **fields: Any) -> Any:
    asked: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": text}], "store": True}
    return client.chat.completions.create(**(asked | fields))


def test_an_answer_is_kept_as_it_was_given(client: OpenAI):
    given = stored(client, metadata={"topic": "greeting"}, temperature=0.5, n=2, logprobs=True)
    found = client.chat.completions.retrieve(given.id)
    assert found.choices == given.choices
    assert found.usage == given.usage
    assert {
        **found.model_dump(),
        **given.model_dump(exclude={"choices", "usage"}, exclude_unset=True),
    } == found.model_dump()
    assert (found.metadata, len(found.choices)) == ({"topic": "greeting"}, 2)
    assert found.model_extra is not None
    assert (found.model_extra["temperature"], found.model_extra["seed"]) == (0.5, None)
    assert found.model_extra["request_id"].startswith("req_")


def test_a_stream_is_kept_when_it_has_ended(client: OpenAI):
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    chunks = list(stored(client, "CALL", model="tools", tools=[tool], stream=True))
    [found] = client.chat.completions.list()
    assert {chunk.id for chunk in chunks} == {found.id}
    assert {chunk.created for chunk in chunks} == {found.created}
    [call] = found.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, found.choices[0].finish_reason) == ("get_weather", "tool_calls")


def test_what_was_not_asked_for_or_failed_is_not_kept(client: OpenAI):
    stored(client, store=False)
    stored(client, store=None)
    with pytest.raises(NotFoundError):
        stored(client, model="nope")
    with stored(client, "FOREVER", stream=True) as stream:
        next(iter(stream))
    assert list(client.chat.completions.list()) == []


def test_pages_go_both_ways(client: OpenAI):
    ids = [stored(client, f"number {number}").id for number in range(7)]
    assert [chat.id for chat in client.chat.completions.list(limit=3)] == ids
    assert [chat.id for chat in client.chat.completions.list(limit=3, order="desc")] == ids[::-1]
    page = client.chat.completions.list(limit=3, after=ids[1])
    assert ([chat.id for chat in page.data], page.has_more) == (ids[2:5], True)
    page = client.chat.completions.list(limit=2, extra_query={"before": ids[3]})
    assert ([chat.id for chat in page.data], page.has_more) == (ids[1:3], True)
    with pytest.raises(NotFoundError) as unknown:
        client.chat.completions.list(after="chatcmpl-none")
    assert unknown.value.param == "after"


def test_they_are_found_by_metadata_and_model(client: OpenAI):
    red = stored(client, metadata={"colour": "red", "size": "s"}).id
    blue = stored(client, metadata={"colour": "blue", "size": "s"}, model="tools").id
    bare = stored(client).id
    listed = client.chat.completions.list

    def ids(**filters: Any) -> list[str]:
        return [chat.id for chat in listed(**filters)]

    assert ids() == [red, blue, bare]
    assert ids(metadata={"colour": "red"}) == [red]
    assert ids(metadata={"size": "s"}) == [red, blue]
    assert ids(metadata={"size": "s", "colour": "blue"}) == [blue]
    assert ids(model="tools") == [blue]
    assert ids(model="tools", metadata={"colour": "red"}) == []
    odd = stored(client, metadata={"a]b[": "c&d=é"}).id
    assert ids(metadata={"a]b[": "c&d=é"}) == [odd]


def test_metadata_is_changed_and_taken_away(client: OpenAI):
    id_ = stored(client, metadata={"a": "1"}).id
    assert client.chat.completions.update(id_, metadata={"b": "2"}).metadata == {"b": "2"}
    assert [chat.metadata for chat in client.chat.completions.list(metadata={"b": "2"})] == [{"b": "2"}]
    assert client.chat.completions.update(id_, metadata=None).metadata == {}
    with pytest.raises(BadRequestError) as wrong:
        client.chat.completions.update(id_, metadata={"k": "x" * 513})
    assert wrong.value.param == "metadata.k"


def test_the_messages_it_answers(client: OpenAI):
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "name": "me"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "three"},
    ]
    id_ = stored(client, messages=messages).id
    found = list(client.chat.completions.messages.list(id_, limit=3))
    assert [message.id for message in found] == [f"{id_}-{at}" for at in range(4)]
    assert [message.role for message in found] == ["system", "user", "assistant", "user"]
    assert [message.content for message in found] == ["Be short.", None, "Yes?", "three"]
    assert [part.text for part in found[1].content_parts or [] if part.type == "text"] == ["one", "two"]
    assert found[0].content_parts is None
    backwards = client.chat.completions.messages.list(id_, order="desc", limit=2)
    assert [message.id for message in backwards.data] == [f"{id_}-3", f"{id_}-2"]
    assert backwards.has_more
    before = client.chat.completions.messages.list(id_, limit=2, extra_query={"before": f"{id_}-3"})
    assert [message.id for message in before.data] == [f"{id_}-1", f"{id_}-2"]
    with pytest.raises(NotFoundError):
        client.chat.completions.messages.list(id_, after="msg")


def test_what_is_deleted_is_gone(client: OpenAI):
    id_ = stored(client).id
    deleted = client.chat.completions.delete(id_)
    assert (deleted.id, deleted.object, deleted.deleted) == (id_, "chat.completion.deleted", True)
    for call in (client.chat.completions.retrieve, client.chat.completions.delete):
        with pytest.raises(NotFoundError):
            call(id_)


def test_another_keys_chats_are_not_there(keyed, client: OpenAI):
    id_ = stored(client).id
    with OpenAI(base_url=f"{keyed.url}/v1", api_key=KEYS[1], max_retries=0) as other:
        chats = other.chat.completions
        calls: list[Any] = [
            lambda: chats.retrieve(id_),
            lambda: chats.update(id_, metadata={"mine": "now"}),
            lambda: chats.delete(id_),
            lambda: chats.messages.list(id_),
            lambda: chats.list(after=id_),
        ]
        for call in calls:
            with pytest.raises(NotFoundError):
                call()
        assert list(chats.list()) == []
    assert client.chat.completions.retrieve(id_).metadata == {}


def test_where_nothing_is_kept_it_is_reported(serving):
    with serving(state="off") as server:
        answer = server.chat(store=True, metadata={"a": "b"})
        assert (answer.status, answer.headers["x-puna-ignored"]) == (200, "store, metadata")
        assert server.get("/v1/chat/completions").json["data"] == []
        assert server.get("/v1/chat/completions/x").status == 404


def test_metadata_without_storing_is_reported(server):
    assert server.chat(metadata={"a": "b"}).headers["x-puna-ignored"] == "metadata"
    assert "x-puna-ignored" not in server.chat(metadata={}, store=False).headers


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("limit=1_0", "limit"),
        ("limit=%D9%A3", "limit"),
        ("order=up", "order"),
        ("limit=5&limit=6", "limit"),
        ("metadata[a]=1&metadata[a]=2", "metadata[a]"),
    ],
)
def test_bad_queries_name_the_parameter(server, query, param):
    answer = server.get(f"/v1/chat/completions?{query}")
    assert (answer.status, answer.error["param"]) == (400, param)


def test_unknown_parameters_of_a_list_are_reported(server):
    assert server.get("/v1/chat/completions?colour=red").headers["x-puna-ignored"] == "colour"


def test_damaged_requests_never_break_the_server(server):
    id_ = server.chat(store=True, metadata={"a": "b"}).json["id"]
    source, statuses = random.Random(5), set()
    junk = ["", "x", "-1", "9" * 400, "1e9", "\x00", "a b", "😀", "' OR 1=1 --", "[]", "null", id_, "%", "asc"]
    names = ["limit", "order", "after", "before", "model", "metadata[a]", "metadata[]", "metadata", "metadata[a][b]"]
    for _ in range(500):
        pairs = [f"{quote(source.choice(names))}={quote(source.choice(junk))}" for _ in range(source.randrange(4))]
        place = source.choice(["", f"/{id_}", f"/{id_}/messages", f"/{quote(source.choice(junk), safe='')}"])
        answer = server.get(f"/v1/chat/completions{place}?{'&'.join(pairs)}")
        statuses.add(answer.status)
        value: Any = source.choice(
            [{"metadata": source.choice([*junk, {"a": 5}, {"": ""}, [], {"\x00": "\x00"}])}, [], "x"]
        )
        statuses.add(server.post(f"/v1/chat/completions/{id_}", value).status)
    assert max(statuses) < 500
    assert {200, 400, 404} <= statuses
    assert server.request("DELETE", f"/v1/chat/completions/{id_}").status == 200


def test_a_change_brings_nothing_back_that_is_deleted(client: OpenAI):
    def race(_: int) -> None:
        chat = stored(client)

        def changed(value: str) -> None:
            with suppress(NotFoundError):
                client.chat.completions.update(chat.id, metadata={"a": value})

        with ThreadPoolExecutor(4) as pool:
            changes = [pool.submit(changed, str(value)) for value in range(4)]
            client.chat.completions.delete(chat.id)
            for change in changes:
                change.result()
        with pytest.raises(NotFoundError):
            client.chat.completions.retrieve(chat.id)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(race, range(30)))


def test_more_pairs_than_a_chat_has_are_refused(server):
    pairs = [f"metadata[k{at}]=v" for at in range(100)]
    assert server.get(f"/v1/chat/completions?{'&'.join(pairs[:16])}").json["data"] == []
    for many in (17, 64, 100):
        answer = server.get(f"/v1/chat/completions?{'&'.join(pairs[:many])}")
        assert (answer.status, answer.error["param"]) == (400, "metadata")
