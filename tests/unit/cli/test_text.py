"""Sizes, times, tables and wrapping, by Ollama's rules."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.cli.text import WordWrap, go_duration, processor, section, table, width
from puna.human import human_bytes, human_duration, human_past, human_until

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1500, "1.5 KB"),
        (98_363_377, "98 MB"),
        (2_019_393_189, "2.0 GB"),
        (2_000_000_000, "2 GB"),
        (17_999_999_999, "17 GB"),
        (3 * 10**12, "3 TB"),
    ],
)
def test_sizes_are_decimal_and_cut(count: int, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * 60, "59 minutes"),
        (60 * 60, "About an hour"),
        (89 * 60, "About an hour"),
        (2 * 3600, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_durations_are_rough(seconds: float, text: str) -> None:
    assert human_duration(timedelta(seconds=seconds)) == text


def test_a_past_moment_is_ago() -> None:
    assert human_past(NOW - timedelta(minutes=20), NOW) == "20 minutes ago"


@pytest.mark.parametrize(
    ("later", "text"),
    [
        (timedelta(minutes=4, seconds=59), "4 minutes from now"),
        (timedelta(0), "Stopping..."),
        (timedelta(seconds=-3), "Stopping..."),
        (timedelta(days=292 * 365), "Forever"),
    ],
)
def test_a_loaded_model_says_until_when(later: timedelta, text: str) -> None:
    assert human_until(NOW + later, NOW) == text


@pytest.mark.parametrize(
    ("size", "vram", "text"),
    [
        (100, 0, "100% CPU"),
        (100, 100, "100% GPU"),
        (100, 75, "25%/75% CPU/GPU"),
        (100, 101, "Unknown"),
        (0, 5, "Unknown"),
    ],
)
def test_the_processor_is_told_by_where_the_bytes_are(size: int, vram: int, text: str) -> None:
    assert processor(size, vram) == text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (17, "17ns"),
        (753_164, "753.164µs"),
        (35_600_000, "35.6ms"),
        (1_195_042_399, "1.195042399s"),
        (62_500_000_000, "1m2.5s"),
        (3_600_000_000_000, "1h0m0s"),
        (-1_000_000, "-1ms"),
    ],
)
def test_durations_are_written_as_go_does(nanoseconds: int, text: str) -> None:
    assert go_duration(nanoseconds) == text


def test_every_cell_is_padded_by_four_also_the_last() -> None:
    lines = table(("NAME", "SIZE"), [("smollm2:135m", "98 MB"), ("x", "1 KB")]).split("\n")
    assert lines == ["NAME            SIZE     ", "smollm2:135m    98 MB    ", "x               1 KB     "]


def test_wide_characters_keep_columns_aligned() -> None:
    lines = table(("NAME", "ID"), [("模型", "a"), ("abcde", "b")]).split("\n")
    assert [width(line) for line in lines] == [15, 15, 15]


def test_a_section_is_indented_and_ends_with_a_blank_line() -> None:
    assert section("Parameters", [("temperature", "0.3"), ("stop", '"x"')]) == (
        '  Parameters\n    temperature    0.3    \n    stop           "x"    \n\n'
    )


ROWS = [("smollm2:135m", "9bde3a1f3e5c", "2 days ago"), ("模型", "a", "")]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (42, ["NAME            ID              MODIFIED", "smollm2:135m    9bde3a1f3e5c    2 days ago"]),
        (41, ["NAME          ID            MODIFIED", "smollm2:135m  9bde3a1f3e5c  2 days ago"]),
        (37, ["smollm2:135m", "  ID        9bde3a1f3e5c", "  MODIFIED  2 days ago", "模型", "  ID        a"]),
    ],
)
def test_a_table_fits_its_terminal(columns: int, shown: list[str]) -> None:
    lines = table(("NAME", "ID", "MODIFIED"), ROWS, columns).split("\n")
    assert [line.rstrip() for line in lines][: len(shown)] == shown
    assert max(map(width, lines)) <= columns


def test_a_section_fits_its_terminal() -> None:
    rows = [("engine", "cpu (it is the faster one on a processor)"), ("stop", '"x"')]
    assert section("Model", rows, 80) == (
        '  Model\n    engine    cpu (it is the faster one on a processor)\n    stop      "x"\n\n'
    )
    assert section("Model", rows, 34) == (
        '  Model\n    engine  cpu (it is the faster\n            one on a processor)\n    stop    "x"\n\n'
    )
    assert section("License", [("Permission is given to everybody",)], 30) == (
        "  License\n    Permission is given to\n    everybody\n\n"
    )


def wrapped(pieces: list[str], columns: int) -> str:
    wrap = WordWrap(columns)
    return "".join(wrap.feed(piece) for piece in pieces) + wrap.flush()


def test_words_are_not_broken_however_they_arrive() -> None:
    assert wrapped(["I'm thri", "lled to be he", "re."], 12) == "I'm thrilled\nto be here."


@given(st.text(alphabet="ab c\n", max_size=80), st.integers(3, 20), st.integers(1, 7))
def test_wrapping_changes_only_white_space_and_keeps_to_the_columns(text: str, columns: int, step: int) -> None:
    pieces = [text[start : start + step] for start in range(0, len(text), step)]
    result = wrapped(pieces, columns)
    assert "".join(result.split()) == "".join(text.split())
    assert all(width(line) <= columns for line in result.split("\n"))
