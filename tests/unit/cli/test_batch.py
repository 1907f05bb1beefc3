from __future__ import annotations

import pytest

from fakes.batches import line, text_of
from puna.cli.batch import UnfitInput, kept, read_input

ANSWER = b'{"id": "batch_req_1", "custom_id": "a", "response": {"status_code": 200}, "error": null}\n'


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "has no lines"),
        ([b"x\n"], "line 1: it is no JSON"),
        ([b"[]\n"], "line 1: it is no JSON object"),
        ([line("a"), b"\n", line("a")], "line 3: a line before has the custom_id 'a'"),
        ([line("a") | {"url": "http://elsewhere/v1/x"}], "'url' must be a path"),
        ([line("a") | {"method": "GET"}], "'method' must be POST"),
        ([line("a") | {"body": 1}], "'body' must be an object"),
        ([line("a") | {"custom_id": ""}], "'custom_id' must be a text"),
        ([line("a", stream=True)], "answers are not streamed"),
        ([line("a", background=True)], "none is made in the background"),
        ([b"x\n"] * 30, "… and 10 more"),
    ],
)
def test_inputs_that_are_not_fit(tmp_path, lines, told):
    path = tmp_path / "in.jsonl"
    path.write_bytes(text_of(lines))
    with pytest.raises(UnfitInput) as raised:
        read_input(path)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("text", "done", "left"),
    [
        (b"", set(), b""),
        (ANSWER, {"a"}, ANSWER),
        (ANSWER + ANSWER.rstrip(), {"a"}, ANSWER),
        (ANSWER + b'{"i', {"a"}, ANSWER),
        (ANSWER[:30], set(), b""),
    ],
)
def test_a_line_that_is_not_whole_is_asked_again(tmp_path, text, done, left):
    path = tmp_path / "out.jsonl"
    path.write_bytes(text)
    with path.open("a+b") as output:
        assert kept(output) == dict.fromkeys(done, False)
    assert path.read_bytes() == left


@pytest.mark.parametrize(
    "text",
    [
        b"notes\n",
        b"[1]\n",
        b"{}\n",
        b"1\n",
        b"notes",
        b'{"a": 1}',
        b"\xff",
        ANSWER + b"notes",
        b'{"custom_id": "a", "url": "/v1/embeddings", "body": {}}\n',
    ],
)
def test_a_file_of_something_else_stays_as_it_is(tmp_path, text):
    path = tmp_path / "out.jsonl"
    path.write_bytes(text)
    with path.open("a+b") as output, pytest.raises(UnfitInput):
        kept(output)
    assert path.read_bytes() == text
