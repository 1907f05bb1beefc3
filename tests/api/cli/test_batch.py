"""`puna batch run`: with a server and without one, stopped, and gone on with."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from fakes.batches import line, text_of
from fakes.waiting import until


@pytest.fixture
def source(tmp_path):
    """`source(lines)`: a file of them."""

    def write(lines):
        path = tmp_path / "in.jsonl"
        path.write_bytes(text_of(lines))
        return str(path)

    return write


def answers(path):
    found = [json.loads(text) for text in path.read_text().splitlines()]
    assert len({one["custom_id"] for one in found}) == len(found)
    return {one["custom_id"]: one["response"] for one in found}


def test_a_server_answers(puna, source, tmp_path):
    lines = (
        [line(f"{n}") for n in range(9)]
        + [line("9", other=1)]
        + [line("e", "/v1/embeddings", model="embedder", input="x")]
    )
    ended = puna("batch", "run", source(lines), "-o", "out.jsonl")
    assert (ended.status, ended.out) == (0, "")
    assert "answering: 11 of 11" in ended.err
    found = answers(tmp_path / "out.jsonl")
    assert found.keys() == {one["custom_id"] for one in lines}
    assert {response["status_code"] for response in found.values()} == {200}
    assert found["9"]["headers"] == {"x-puna-ignored": "other"}
    assert found["3"]["request_id"].startswith("req_")
    assert found["3"]["body"]["choices"][0]["message"]["content"] == "Hello there, friend."


def test_no_server_is_needed(command, source, store, tmp_path):
    script = tmp_path / "script.json"
    script.write_text('{"default": {"text": "Here."}}')
    more = {"PUNA_MODELS": str(store), "PUNA_ENGINE": "scripted", "PUNA_SCRIPT": str(script), "PUNA_NOPRUNE": "1"}
    alone = command("http://127.0.0.1:1", **more)
    ended = alone("batch", "run", source([line("a"), line("b")]), "--output", "out.jsonl", "--parallel", "1")
    assert ended.status == 0, ended.err
    assert {
        name: one["body"]["choices"][0]["message"]["content"] for name, one in answers(tmp_path / "out.jsonl").items()
    } == {
        "a": "Here.",
        "b": "Here.",
    }


def test_it_goes_on_where_it_stood(puna, source, tmp_path):
    path, output = source([line(f"{n}") for n in range(5)]), tmp_path / "out.jsonl"
    assert puna("batch", "run", path, "-o", "out.jsonl").status == 0
    whole = output.read_bytes()
    again = puna("batch", "run", path, "-o", "out.jsonl")
    assert (again.status, output.read_bytes()) == (0, whole)
    assert "5 of 5 lines are in out.jsonl already" in again.err
    first, second, third, *_ = whole.splitlines(keepends=True)
    output.write_bytes(first + second + third[:60])
    assert puna("batch", "run", path, "-o", "out.jsonl").status == 0
    assert output.read_bytes().startswith(first + second)
    assert answers(output).keys() == {f"{n}" for n in range(5)}


def test_it_is_stopped(puna, source, tmp_path):
    slow = [{"role": "user", "content": "SLOW"}]
    path, output = source([line(f"{n}", messages=slow) for n in range(40)]), tmp_path / "out.jsonl"
    with puna.start("batch", "run", path, "-o", "out.jsonl", stderr=subprocess.PIPE) as process:
        until(lambda: output.exists() and output.read_bytes().count(b"\n") > 2, 30, "some answers")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"the same command goes on" in err
    assert 2 < len(answers(output)) < 40


def test_lines_that_fail(puna, source, tmp_path):
    ended = puna(
        "batch", "run", source([line("a"), line("b", temperature=9), line("c", "/v1/none")]), "-o", "out.jsonl"
    )
    assert ended.status == 1
    assert "2 of 3 lines failed" in ended.err
    found = {name: response["status_code"] for name, response in answers(tmp_path / "out.jsonl").items()}
    assert found == {"a": 200, "b": 400, "c": 404}
    again = puna("batch", "run", "in.jsonl", "-o", "out.jsonl")
    assert again.status == 1, "they are not asked again, and have failed"
    assert "3 of 3 lines are in out.jsonl already" in again.err
    assert "2 of 3 lines failed" in again.err


def test_an_input_that_is_not_fit(puna, source, tmp_path):
    ended = puna("batch", "run", source([b"x\n"]), "-o", "out.jsonl")
    assert (ended.status, (tmp_path / "out.jsonl").exists()) == (1, False)
    assert "line 1: it is no JSON" in ended.err


def test_files_that_are_not_there_or_hold_something_else(puna, source, tmp_path):
    assert "cannot read" in puna("batch", "run", "none.jsonl", "-o", "out.jsonl").err
    assert "cannot write" in puna("batch", "run", source([line("a")]), "-o", "none/out.jsonl").err
    (tmp_path / "notes.txt").write_text("my notes\n")
    ended = puna("batch", "run", source([line("a")]), "-o", "notes.txt")
    assert "holds something else" in ended.err
    assert (tmp_path / "notes.txt").read_text() == "my notes\n"


def test_a_header_that_is_no_boolean(server):
    answer = server.chat(headers={"x-puna-background": "maybe"})
    assert (answer.status, answer.error["param"]) == (400, "x-puna-background")
