from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.chat.harmony import HarmonySplitter
from puna.chat.text import TextStream
from puna.template.facts import HARMONY

WHOLE = "<|channel|>analysis<|message|>Hm, a < b.<|end|><|start|>assistant<|channel|>final<|message|>Yes <|b.<|return|>"


def run(text: str, size: int) -> tuple[str, str]:
    stream = TextStream((), HarmonySplitter())
    data = text.encode()
    pieces = [piece for at in range(0, len(data), size) for piece in stream.feed(data[at : at + size])]
    pieces += stream.finish()
    thought, answer = [[piece.text for piece in pieces if piece.thinking is kind] for kind in (True, False)]
    return "".join(thought), "".join(answer)


@given(st.integers(1, len(WHOLE)))
def test_channels_however_they_are_cut(size: int) -> None:
    assert run(WHOLE, size) == ("Hm, a < b.", "Yes <|b.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|channel|>final<|message|>Yes.", ("", "Yes.")),
        ("<|channel|>analysis<|message|>Cut sho", ("Cut sho", "")),
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assist", ("Hm.", "")),
        ("<|channel|>commentary<|message|>I will look.<|end|>", ("", "I will look.")),
        ('{"plain": 1}', ("", '{"plain": 1}')),
    ],
)
def test_parts(text: str, expected: tuple[str, str]) -> None:
    assert run(text, 3) == expected


def test_a_thought_that_somebody_closes() -> None:
    stream = TextStream(("on",), HarmonySplitter())
    begun = ("<|channel|>analysis", "<|message|>", "Hm", ". <|e")
    told = []
    for piece, open_ in zip(begun, (False, True, True, False), strict=True):
        told += stream.feed(piece.encode())
        assert stream.open is open_
    told += stream.feed(b"?")
    assert stream.open
    told += stream.close_thought(HARMONY.close)
    assert not stream.open
    told += stream.feed(b"Yes.") + stream.finish()
    assert "".join(piece.text for piece in told if piece.thinking) == "Hm. <|e?"
    assert "".join(piece.text for piece in told if not piece.thinking) == "Yes."
