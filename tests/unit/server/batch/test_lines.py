from __future__ import annotations

import io
import json

from hypothesis import given
from hypothesis import strategies as st

from puna.server.batch import lines
from puna.server.batch.batch import BatchUsage
from puna.server.batch.lines import check_lines, lines_of, numbered, read_line


def text(custom_id, **body):
    asked = {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", **body}}
    return json.dumps(asked).encode()


def test_a_line_is_cut_where_it_is_too_long():
    file = io.BytesIO(b"short\n" + b"x" * 100 + b"\nlast")
    assert list(lines_of(file, 10)) == [b"short\n", b"x" * 10, b"last"]


def test_lines_keep_their_numbers():
    assert list(numbered([b"\xef\xbb\xbfa\n", b"\n", b" \r\n", b"b"])) == [(1, b"a"), (4, b"b")]


def test_limits(monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINES", 3)
    monkeypatch.setattr(lines, "MAX_INPUTS", 10)
    many = check_lines([text(f"{n}") for n in range(9)], "/v1/embeddings")
    assert [fault.code for fault in many.faults] == ["too_many_tasks"]
    large = check_lines(
        [text("a", input=["x"] * 6), text("b", input=[[1]] * 4), text("c", input=[1, 2])], "/v1/embeddings"
    )
    assert [(fault.code, fault.line) for fault in large.faults] == [("too_many_inputs", 3)]


def test_faults_are_not_told_for_ever():
    found = check_lines([b"{"] * 1000, "/v1/x")
    assert len(found.faults) == lines.MAX_FAULTS


@given(st.lists(st.binary(max_size=60) | st.sampled_from([text("a"), text("b"), b"{}", b'{"body": {}}']), max_size=8))
def test_any_bytes(texts):
    found = check_lines(texts, "/v1/embeddings")
    if not found.faults:
        assert [read_line(number, one, "/v1/embeddings").number for number, one in numbered(texts)]


def test_usage_of_every_dialect():
    chat = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 1}}  # fmt: skip
    response = {"input_tokens": 3, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1},
                "output_tokens_details": {"reasoning_tokens": 1}}  # fmt: skip
    assert BatchUsage.of({"usage": chat}) == BatchUsage.of({"usage": response}) == BatchUsage(3, 1, 2, 1)
    for nothing in (None, "x", {}, {"usage": None}, {"usage": {"prompt_tokens": "3"}}):
        assert BatchUsage.of(nothing) == BatchUsage()
