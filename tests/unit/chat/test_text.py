"""Bytes to text: whatever way an answer is cut into tokens, the same text is shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.chat.text import Ledger, ShownText, StopMatcher, TextStream, ThinkingSplitter
from puna.template.facts import ThinkTags
from puna.types import Candidate, TokenLogprob

THINK = ThinkTags("<think>", "</think>")


def cuts(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


def shown(pieces: Sequence[ShownText]) -> tuple[str, str]:
    """(thinking, answer)"""
    return (
        "".join(piece.text for piece in pieces if piece.thinking),
        "".join(piece.text for piece in pieces if not piece.thinking),
    )


def run(stream: TextStream, tokens: Sequence[bytes]) -> tuple[str, str]:
    pieces: list[ShownText] = []
    for token in tokens:
        pieces += stream.feed(token)
        if stream.stop is not None:
            break
    return shown(pieces + stream.finish())


places = st.lists(st.integers(0, 200), max_size=30)
few_letters = st.text(alphabet="ab<>/ \nthink😀é", max_size=60)


@given(st.binary(max_size=40), places)
def test_any_bytes_give_the_text_that_python_reads(data: bytes, where: list[int]) -> None:
    assert run(TextStream(), cuts(data, where)) == ("", data.decode(errors="replace"))


def test_half_a_character_waits() -> None:
    stream = TextStream()
    first, second = "😀".encode()[:2], "😀".encode()[2:]
    assert stream.feed(first) == []
    assert [piece.text for piece in stream.feed(second)] == ["😀"]


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """Character by character: the first stop string that is complete ends the text, of two the longer."""
    for end in range(1, len(text) + 1):
        begins = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if begins:
            return text[: min(begins)]
    return text


@given(
    st.text(alphabet="abc", max_size=30),
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=4),
    places,
)
def test_stop_strings_never_show(text: str, stops: list[str], where: list[int]) -> None:
    expected = cut_at_stop(text, stops)
    stream = TextStream(stops)
    assert run(stream, cuts(text.encode(), where)) == ("", expected)
    assert (stream.stop is not None) == (expected != text)


def test_stop_string_over_two_tokens_is_held_back() -> None:
    matcher = StopMatcher(["###", "STOP"])
    assert matcher.feed("go S") == "go "
    assert matcher.feed("TO") == ""
    assert matcher.feed("P now") == ""
    assert matcher.found == "STOP"
    assert matcher.finish() == ""


def test_what_only_looked_like_a_stop_string_is_given() -> None:
    matcher = StopMatcher(["STOP"])
    assert matcher.feed("go ST") == "go "
    assert matcher.feed("EP") == "STEP"
    assert matcher.feed("ST") == ""
    assert matcher.finish() == "ST"
    assert matcher.found is None


def test_the_longer_of_two_stop_strings_that_end_together_counts() -> None:
    matcher = StopMatcher(["b", "ab"])
    assert matcher.feed("xab") == "x"
    assert matcher.found == "ab"


def test_an_empty_stop_string_stops_nothing() -> None:
    assert run(TextStream([""]), [b"text"]) == ("", "text")


@given(few_letters, places, st.booleans(), st.lists(st.text(alphabet="ab<th", min_size=1, max_size=3), max_size=2))
def test_thinking_is_the_same_however_it_is_cut(text: str, where: list[int], inside: bool, stops: list[str]) -> None:
    whole = run(TextStream(stops, ThinkingSplitter(THINK, inside=inside)), [text.encode()])
    assert run(TextStream(stops, ThinkingSplitter(THINK, inside=inside)), cuts(text.encode(), where)) == whole


@pytest.mark.parametrize(
    ("text", "inside", "expected"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", False, ("Hm.", "Yes.")),
        (" \n<think>Hm.</think>Yes.", False, ("Hm.", "Yes.")),
        ("Hm.\n</think>\n\nYes.", True, ("Hm.", "Yes.")),
        ("<think>Hm.</think>Yes.", True, ("Hm.", "Yes.")),
        (" Yes. <think>no</think>", False, ("", " Yes. <think>no</think>")),
        ("<thin air", False, ("", "<thin air")),
        ("<thin", False, ("", "<thin")),
        ("<think>Cut sho", False, ("Cut sho", "")),
        ("<think>Cut </thi", False, ("Cut </thi", "")),
        ("<think></think>Yes.", False, ("", "Yes.")),
        ("<think>\n\n</think>\n\n", False, ("", "")),
        ("", True, ("", "")),
    ],
)
def test_thinking_and_answer(text: str, inside: bool, expected: tuple[str, str]) -> None:
    assert (
        run(TextStream((), ThinkingSplitter(THINK, inside=inside)), [bytes([byte]) for byte in text.encode()])
        == expected
    )


def test_thinking_goes_out_as_it_comes() -> None:
    splitter = ThinkingSplitter(THINK)
    assert splitter.feed("<think>One ") == ("One", "")
    assert splitter.feed("two</th") == (" two", "")
    assert splitter.feed("ink>Three") == ("", "Three")


def entry(number: int) -> TokenLogprob:
    return TokenLogprob(Candidate(number, b"", -1.0))


def test_entries_wait_for_the_text_of_their_token() -> None:
    ledger = Ledger()
    ledger.add(0, entry(1))
    ledger.add(0, entry(2))
    ledger.add(3, entry(3))
    assert ledger.take(0) == ()
    assert ledger.take(3) == (entry(1), entry(2))
    assert ledger.take(9) == (entry(3),)
    assert ledger.take(9) == ()
