"""The lock file: what is written is read again, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from puna.errors import InvalidRequest
from puna.model.lock import Locked, dump_lock, parse_lock
from puna.model.reference import Reference

ONE = Locked(wanted=Reference.parse("one@sha256:" + "ab" * 32), size=5, source="somewhere")
TWO = Locked(wanted=Reference.parse("a.b:5000/c/two:v2@sha256:" + "cd" * 32), size=7)


def test_what_is_written_is_read() -> None:
    text = dump_lock([ONE, TWO])
    assert parse_lock(text) == (TWO, ONE)
    assert dump_lock([TWO, ONE]) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "models": []}',
        '{"version": 1}',
        '{"version": 1, "models": [{}]}',
        dump_lock([ONE]).replace("sha256:", "md5:"),
        dump_lock([ONE]).replace("ab" * 32, "ab"),
        dump_lock([ONE]).replace("5,", "-5,"),
        dump_lock([ONE]).replace("5,", "true,"),
        dump_lock([ONE]).replace("/library/", "/../"),
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidRequest, match="the lock file"):
        parse_lock(text)
