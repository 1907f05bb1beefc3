"""Batches, by OpenAI's own client."""

from __future__ import annotations

import pytest
from openai import APITimeoutError, BadRequestError, ConflictError, NotFoundError

from fakes.batches import ended, line, rows, submit
from fakes.waiting import until


@pytest.fixture
def run(openai):
    """`run(lines, endpoint=…)`: the batch, when it has ended."""
    return lambda lines, **fields: ended(openai, submit(openai, lines, **fields))


def test_a_batch_lives(openai):
    batch = submit(openai, [line("a"), line("b", temperature=9), line("c")], metadata={"k": "v"})
    assert (batch.object, batch.status, batch.completion_window) == ("batch", "validating", "24h")
    assert batch.expires_at == batch.created_at + 24 * 3600
    batch = ended(openai, batch)
    assert (batch.status, batch.model, batch.metadata, batch.errors) == ("completed", "tiny", {"k": "v"}, None)
    assert batch.request_counts.model_dump() == {"total": 3, "completed": 2, "failed": 1}
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert (batch.failed_at, batch.expired_at, batch.cancelling_at, batch.cancelled_at) == (None,) * 4
    outputs, errors = rows(openai, batch.output_file_id), rows(openai, batch.error_file_id)
    assert (outputs.keys(), errors.keys()) == ({"a", "c"}, {"b"})
    for row in (*outputs.values(), *errors.values()):
        assert row["id"].startswith("batch_req_")
        assert row["response"]["request_id"].startswith("req_")
        assert row["error"] is None
    assert errors["b"]["response"]["status_code"] == 400
    assert errors["b"]["response"]["body"]["error"]["param"] == "temperature"
    usage = [row["response"]["body"]["usage"] for row in outputs.values()]
    assert batch.usage.total_tokens == sum(one["total_tokens"] for one in usage)
    assert batch.usage.output_tokens == sum(one["completion_tokens"] for one in usage)
    output = openai.files.retrieve(batch.output_file_id)
    assert (output.purpose, output.filename, output.expires_at) == ("batch_output", f"{batch.id}_output.jsonl", None)


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "EMOJI"}], "n": 2}),
        ("/v1/completions", {"prompt": ["Hi", "Ho"], "max_tokens": 3, "echo": True}),
        ("/v1/embeddings", {"model": "embedder", "input": ["a", "b"]}),
        ("/v1/decisions", {"input": "x", "questions": [{"type": "predicate", "instructions": "Is it?"}]}),
        ("/v1/rerank", {"model": "ranker", "query": "a cat", "documents": ["a dog", "cat"]}),
        ("/v1/score", {"model": "ranker", "text_1": "a cat", "text_2": ["a dog", "cat"]}),
    ],
)
def test_a_line_gets_what_the_route_gives(server, openai, run, url, body):
    batch = run([line("a", url, **body)], endpoint=url)
    answer = rows(openai, batch.output_file_id)["a"]["response"]
    direct = server.post(url, {"model": "tiny", **body}).json
    for cached in ("prompt_tokens_details", "input_tokens_details"):
        direct.get("usage", {}).pop(cached, None)
        answer["body"].get("usage", {}).pop(cached, None)
    for changing in ("id", "created"):
        direct.pop(changing, None)
        answer["body"].pop(changing, None)
    assert (answer["status_code"], answer["body"]) == (200, direct)


def test_responses_are_kept_as_those_of_the_route(openai, run):
    batch = run([line("a", "/v1/responses", input="Hi")], endpoint="/v1/responses")
    answer = rows(openai, batch.output_file_id)["a"]["response"]["body"]
    assert openai.responses.retrieve(answer["id"]).output_text == "Hello there, friend."
    assert batch.usage.output_tokens == answer["usage"]["output_tokens"] == 5


def test_what_had_no_effect_is_told_in_the_line(openai, run):
    batch = run([line("a", other=1, seed=1), line("b")])
    outputs = rows(openai, batch.output_file_id)
    assert outputs["a"]["response"]["headers"] == {"x-puna-ignored": "other", "x-puna-seed": "exact"}
    assert "headers" not in outputs["b"]["response"]


def test_fields_of_a_line_that_mean_nothing_are_told_in_it(openai, run):
    batch = run([line("a") | {"frobnicate": 1}, line("b", temperature=9) | {"x": None, "y": 2}, line("c")])
    told = {**rows(openai, batch.output_file_id), **rows(openai, batch.error_file_id)}
    assert {key: row.get("ignored") for key, row in told.items()} == {"a": ["frobnicate"], "b": ["x", "y"], "c": None}


def test_outputs_that_go(openai, run):
    batch = run([line("a")], output_expires_after={"anchor": "created_at", "seconds": 3600})
    output = openai.files.retrieve(batch.output_file_id)
    assert output.expires_at == output.created_at + 3600


def test_an_output_without_errors_and_errors_without_output(openai, run):
    good, bad = run([line("a")]), run([line("a", n=0)])
    assert (good.error_file_id, bad.output_file_id) == (None, None)
    assert bad.status == "completed"
    assert rows(openai, bad.error_file_id).keys() == {"a"}


def test_the_input_may_go_while_it_is_answered(openai):
    batch = submit(openai, [line("a"), line("b")])
    openai.files.delete(batch.input_file_id)
    assert rows(openai, ended(openai, batch).output_file_id).keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        ([], [("empty_file", None, None)]),
        ([b"\n \n"], [("empty_file", None, None)]),
        ([line("a"), b"{\n", line("b"), b"[1]\n"], [("invalid_json_line", None, 2), ("invalid_json_line", None, 4)]),
        ([line("a"), line("a")], [("duplicate_custom_id", "custom_id", 2)]),
        ([line("a", url="/v1/completions")], [("invalid_url", "url", 1)]),
        ([line("a") | {"method": "GET"}], [("invalid_method", "method", 1)]),
        ([line("a") | {"body": None}], [("missing_required_parameter", "body", 1)]),
        ([line("a") | {"body": []}], [("invalid_type", "body", 1)]),
        ([line("")], [("invalid_custom_id", "custom_id", 1)]),
        ([line("a") | {"custom_id": 1}], [("invalid_custom_id", "custom_id", 1)]),
        ([line("a", model=None)], [("missing_required_parameter", "body.model", 1)]),
        ([line("a"), line("b", model="tools")], [("mismatched_model", "body.model", 2)]),
        ([line("a", stream=True)], [("invalid_value", "body.stream", 1)]),
        ([line("a", background=True)], [("invalid_value", "body.background", 1)]),
        ([b"\xff\n"], [("invalid_json_line", None, 1)]),
    ],
)
def test_inputs_that_are_not_fit(run, lines, faults):
    batch = run(lines or [b" "])
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    assert [(fault.code, fault.param, fault.line) for fault in batch.errors.data] == faults
    assert batch.request_counts.model_dump() == {"total": 0, "completed": 0, "failed": 0}
    assert batch.failed_at >= batch.created_at


def test_a_batch_is_cancelled(openai):
    lines = [line("short"), *(line(f"{n}", messages=[{"role": "user", "content": "FOREVER"}]) for n in range(20))]
    batch = submit(openai, lines)
    cancelling = openai.batches.cancel(batch.id)
    assert cancelling.status in {"cancelling", "cancelled"}
    assert cancelling.cancelling_at
    batch = ended(openai, batch)
    assert (batch.status, batch.cancelled_at >= batch.cancelling_at) == ("cancelled", True)
    done = rows(openai, batch.output_file_id).keys() | rows(openai, batch.error_file_id).keys()
    assert done in ({one["custom_id"] for one in lines}, set())
    with pytest.raises(ConflictError):
        openai.batches.cancel(batch.id)


def test_lines_that_no_answer_was_begun_for_are_told(openai):
    lines = [line(f"{n}", messages=[{"role": "user", "content": "FOREVER"}]) for n in range(20)]
    batch = submit(openai, lines)
    until(lambda: openai.batches.retrieve(batch.id).status == "in_progress", 30, "work")
    openai.batches.cancel(batch.id)
    batch = ended(openai, batch)
    errors = rows(openai, batch.error_file_id)
    assert errors.keys() == {one["custom_id"] for one in lines} - rows(openai, batch.output_file_id).keys()
    assert {(row["response"], row["error"]["code"]) for row in errors.values()} == {(None, "batch_cancelled")}


def test_lists_of_batches(openai, run):
    batches = [submit(openai, [line("a")]).id for _ in range(3)]
    listed = openai.batches.list(limit=2)
    assert [batch.id for batch in listed.data] == batches[:0:-1]
    assert [batch.id for batch in listed][:3] == batches[::-1]
    before = openai.batches.list(limit=1, extra_query={"before": batches[0]})
    assert [batch.id for batch in before.data] == [batches[1]]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"endpoint": "/v1/images"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {f"{n}": "" for n in range(17)}}, "metadata"),
        ({"input_file_id": None}, "input_file_id"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
    ],
)
def test_faults_of_batches(server, change, param):
    body = {"input_file_id": "file-x", "endpoint": "/v1/embeddings", "completion_window": "24h"} | change
    answer = server.post("/v1/batches", body)
    assert (answer.status, answer.error["param"]) == (400, param)


def test_files_that_are_no_input(openai):
    with pytest.raises(NotFoundError) as raised:
        openai.batches.create(input_file_id="file-none", endpoint="/v1/embeddings", completion_window="24h")
    assert raised.value.body["param"] == "input_file_id"
    file = openai.files.create(file=b"x", purpose="evals")
    with pytest.raises(BadRequestError, match="purpose"):
        openai.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")


def test_a_batch_of_a_key_is_answered_for_it(serving, tmp_path, openai):
    with serving(state=tmp_path, api_keys=("one", "two")) as own:
        mine = openai.with_options(base_url=f"{own.url}/v1", api_key="one")
        batch = ended(mine, submit(mine, [line("a")]))
        assert rows(mine, batch.output_file_id).keys() == {"a"}


def test_a_chat_goes_first(serving, tmp_path, openai):
    """On one slot, a line that takes until the context is full gives way, and is asked again."""
    with serving(state=tmp_path, num_parallel=1) as own:
        mine = openai.with_options(base_url=f"{own.url}/v1", timeout=35)
        batch = submit(mine, [line("a", messages=[{"role": "user", "content": "FOREVER"}])])
        for _ in range(2):
            until(lambda: own.busy() == 1, 30, "the line to be answered")
            answer = mine.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hi"}])
            assert answer.choices[0].message.content == "Hello there, friend."
        assert mine.batches.retrieve(batch.id).request_counts.failed == 0
        mine.batches.cancel(batch.id)
        assert ended(mine, batch).status == "cancelled"


def test_a_request_that_is_background_work_waits(serving, tmp_path, openai):
    with serving(state=tmp_path, num_parallel=1) as own:
        mine = openai.with_options(base_url=f"{own.url}/v1")
        forever = {"model": "tiny", "messages": [{"role": "user", "content": "FOREVER"}]}
        with mine.chat.completions.create(**forever, stream=True) as stream:
            next(iter(stream))
            behind = mine.with_options(default_headers={"x-puna-background": "true"}, timeout=1)
            with pytest.raises(APITimeoutError):
                behind.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hi"}])
        behind = behind.with_options(timeout=30)
        answer = behind.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hi"}])
        assert answer.choices[0].message.content == "Hello there, friend."
