"""Lines of Ollama's streams: what is written beforehand gives the bytes that the whole object would."""

from __future__ import annotations

import json
import re

import pytest

from puna.server.body import dump
from puna.server.ollama.objects import Turn
from puna.types import Candidate, Event, Finished, TextDelta, ThinkingDelta, TokenLogprob

STAMP = re.compile(rb'"created_at":"[^"]+"')


def untimed(line: bytes | None) -> bytes:
    assert line is not None
    return STAMP.sub(b"", line)


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("model", ["tiny", 'a"b\\é\ud800'])
@pytest.mark.parametrize(
    "event",
    [
        *(TextDelta(0, text) for text in ("", " the", 'é"\\\n\t\x00\x7f  𝄞', "half \ud83d")),
        TextDelta(0, "x", (TokenLogprob(Candidate(1, b"x", -0.5), ()),)),
        ThinkingDelta(0, "hm"),
    ],
)
def test_a_line_is_the_object_and_a_line_break(chat: bool, model: str, event: Event) -> None:
    turn = Turn(model, chat=chat)
    item = turn.object_of(event)
    assert item is not None
    line = turn.line_of(event)
    assert untimed(line) == untimed(dump(item) + b"\n")
    assert list(json.loads(line or b"")) == list(item)


def test_what_tells_nothing_is_no_line() -> None:
    assert Turn("m", chat=True).line_of(Finished(0, "stop", ())) is None
