"""Where an answer is in a text that it may be repeating, and how much of it appeared."""

from __future__ import annotations

import random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from puna.engine.prediction import AT_ONCE, GRAM, REACH, RUN, Follower, appeared

TEXT = list(range(100, 160))


def fed(follower: Follower, *tokens: int) -> Follower:
    answer: list[int] = []
    for token in tokens:
        answer.append(token)
        follower.feed(answer)
    return follower


def test_an_expected_text_is_followed_from_its_start() -> None:
    follower = Follower(TEXT, from_start=True)
    assert follower.ahead(3) == [100, 101, 102]
    assert fed(follower, 100, 101).ahead(3) == [102, 103, 104]


def test_at_its_end_nothing_more_is_expected() -> None:
    assert fed(Follower(TEXT, from_start=True), *TEXT).ahead(3) == []
    assert Follower([], from_start=True).ahead(3) == []


def test_nothing_is_expected_of_a_text_before_some_of_it_came() -> None:
    follower = Follower(TEXT)
    assert follower.ahead(3) == []
    assert fed(follower, 1, 120, 121).ahead(3) == []
    assert fed(Follower(TEXT), 1, 120, 121, 122).ahead(3) == [123, 124, 125]


def test_a_token_in_place_of_another_is_passed() -> None:
    assert fed(Follower(TEXT, from_start=True), 100, 101, 5).ahead(2) == [103, 104]


def test_what_is_left_out_or_put_in_is_passed_once_two_tokens_agree() -> None:
    assert fed(Follower(TEXT, from_start=True), 100, 101, 106, 107).ahead(2) == [108, 109]
    assert fed(Follower(TEXT, from_start=True), 100, 101, 5, 6, 7, 8, 102, 103).ahead(2) == [104, 105]


def test_far_away_three_tokens_must_agree() -> None:
    assert fed(Follower(TEXT, from_start=True), 100, 101, 150, 151).ahead(1) == []
    assert fed(Follower(TEXT, from_start=True), 100, 101, 150, 151, 152).ahead(1) == [153]


def test_of_places_that_look_alike_the_one_that_fits_longest_is_taken() -> None:
    text = [1, 2, 3, 10, 5, 2, 3, 10, 6, 9, 2, 3, 10, 7]
    assert fed(Follower(text), 0, 5, 2, 3, 10).ahead(1) == [6]
    assert fed(Follower(text), 0, 8, 2, 3, 10).ahead(1) == [7]  # all alike: the latest


def test_of_places_that_fit_alike_the_next_one_is_taken() -> None:
    """A text that has the same lines again and again is gone through line by line."""
    line = [1, 2, 3]
    text = [token for number in range(10) for token in (*line, 50 + number)]
    follower, answer = Follower(text, from_start=True), []
    for number in range(10):
        for token in line:
            answer.append(token)
            follower.feed(answer)
        assert follower.ahead(1) == [50 + number]
        for token in (50 + number, 90, 91):
            answer.append(token)
            follower.feed(answer)


def test_an_answer_that_repeats_itself_is_followed_in_itself() -> None:
    answer = [1, 2, 3, 4, 5]
    follower = Follower(answer)
    for token in [1, 2, 3]:
        answer.append(token)
        follower.feed(answer)
    assert follower.ahead(2) == [4, 5]
    assert follower.run == GRAM


def test_what_agrees_counts_as_a_run() -> None:
    assert fed(Follower(TEXT, from_start=True), *TEXT[:30]).run == RUN
    assert fed(Follower(TEXT), *TEXT[10:16]).run == 6
    assert fed(Follower(TEXT, from_start=True), *TEXT[:9], 5).run == 0


def test_a_long_text_is_known_bit_by_bit() -> None:
    text = list(range(3 * AT_ONCE))
    follower = Follower(text)
    place = 2 * AT_ONCE + 100
    answer: list[int] = []
    for token in [*[9] * 4, *text[place : place + 3]]:
        answer.append(token)
        follower.feed(answer)
    assert follower.ahead(2) == [place + 3, place + 4]


def test_of_a_very_long_text_the_end_is_known() -> None:
    text = list(range(REACH + 5000))
    follower, answer = Follower(text), [9]
    for token in [*[9] * (REACH // AT_ONCE + 1), *text[2000:2003]]:
        answer.append(token)
        follower.feed(answer)
    assert follower.ahead(1) == []
    for token in text[60_000:60_003]:
        answer.append(token)
        follower.feed(answer)
    assert follower.ahead(1) == [60_003]


@given(st.lists(st.integers(0, 3), max_size=80), st.lists(st.integers(0, 3), max_size=40), st.booleans())
def test_a_place_is_one_whose_tokens_before_it_have_come(answer: list[int], text: list[int], start: bool) -> None:
    """Of texts with so few different tokens that everything is found everywhere."""
    follower = Follower(text, from_start=start)
    for end in range(1, len(answer) + 1):
        follower.feed(answer[:end])
        if follower.at is not None:
            assert follower.at <= len(text) + 1
        ahead = follower.ahead(5)
        assert ahead == ([] if follower.at is None else text[follower.at : follower.at + 5])
        if follower.run and not (start and end < 4):
            assert follower.at is not None
            assert text[follower.at - 1] == answer[end - 1]


@given(st.lists(st.integers(0, 3), max_size=80))
def test_what_an_answer_finds_in_itself_came_before(tokens: list[int]) -> None:
    answer: list[int] = []
    follower = Follower(answer)
    for token in tokens:
        answer.append(token)
        follower.feed(answer)
        assert follower.at is None or follower.at <= len(answer)


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        (TEXT, 60),
        ([], 0),
        ([1, 2, 3, 4], 0),
        ([*TEXT[:20], 1, *TEXT[21:]], 59),
        ([*TEXT[:20], 1, 2, 3, *TEXT[20:]], 60),
        ([*TEXT[:20], *TEXT[30:]], 50),
        ([*TEXT, *TEXT], 60),
        ([1, 2, 3, 4, 5, *TEXT[5:]], 55),
    ],
)
def test_tokens_of_a_prediction_that_appeared(answer: list[int], count: int) -> None:
    assert appeared(TEXT, answer) == count


def test_no_more_appears_than_there_is_on_either_side() -> None:
    source = random.Random(1)
    for _ in range(200):
        text, answer = ([source.randrange(5) for _ in range(source.randrange(60))] for _ in range(2))
        assert 0 <= appeared(text, answer) <= len(text)
    assert appeared([], [1, 2]) == 0
