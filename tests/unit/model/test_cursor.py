"""Texts are walked many at a time, and one by one where that is not possible: it makes no difference what is found."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.gguf_files import Int32, gguf_bytes
from puna.model.cursor import MAX_HEADER_BYTES, SHORT, STRETCH, U64, Cursor, Malformed
from puna.model.gguf import SpecialToken, read_header
from puna.plainfile import open_plain

KINDS: dict[str, Sequence[int]] = {
    "short": range(1, 12),
    "with none": range(4),
    "as long as can be walked together": (SHORT - 1, SHORT, 1, 2),
    "some longer": (*range(1, 30), SHORT + 1),
    "long": range(200, 600),
    "all alike": (7,),
}
ALPHABETS = {"letters": b"abc", "zeros": b"\0", "lengths": bytes((0, 0, 0, 0, 0, 0, 0, 1, 8))}


def written(texts: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("<Q", len(text)) + text for text in texts)


def places(texts: Sequence[bytes], start: int) -> list[int]:
    found = [start]
    for text in texts:
        found.append(found[-1] + 8 + len(text))
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(sorted(ALPHABETS)),
    st.integers(0, 4 * STRETCH + 3),
    st.sampled_from([0, 1, SHORT]),
    st.integers(0, 1 << 32),
)
def test_walking_finds_where_texts_are(
    tmp_path: Path, kind: str, alphabet: str, count: int, longest: int, seed: int
) -> None:
    source = random.Random(seed)
    letters = bytes(source.choices(ALPHABETS[alphabet], k=4000))
    lengths = source.choices(KINDS[kind], k=count)
    texts = [letters[place % 1999 :][:length] for place, length in enumerate(lengths)]
    data = b"before" + written(texts) + b"behind"
    path = tmp_path / "texts"
    path.write_bytes(data)
    ends = places(texts, len(b"before"))
    with open_plain(path) as file:
        cursor = Cursor(file, len(data))
        assert cursor.take(6) == b"before"
        marks, found = cursor.walk_texts(count, longest)
        assert marks == ends[:-1:STRETCH]
        assert found == max(map(len, texts), default=0) if not longest else found >= max(map(len, texts), default=0)
        assert (cursor.position, cursor.take(6)) == (ends[-1], b"behind")
        some = sorted(source.sample(range(count), min(count, 40)))
        cursor.seek(ends[0])
        assert cursor.texts_at(some, len(data))[0] == [texts[place].decode("latin-1") for place in some]


def test_more_stretches_than_are_tried_together(tmp_path: Path) -> None:
    texts = [bytes((97,)) * (300 if not place % 500 else 3) for place in range(100 * STRETCH)]
    path = tmp_path / "texts"
    path.write_bytes(written(texts))
    with open_plain(path) as file:
        cursor = Cursor(file, path.stat().st_size)
        assert cursor.walk_texts(len(texts)) == (places(texts, 0)[:-1:STRETCH], 300)
        assert cursor.position == path.stat().st_size


@pytest.mark.parametrize("length", [3, SHORT, SHORT + 1])
def test_texts_that_leave_the_file(tmp_path: Path, length: int) -> None:
    texts = written([b"a" * length] * (3 * STRETCH))
    path = tmp_path / "texts"
    for cut in (1, length, length + 1, length + 8, len(texts) // 2, len(texts) - 1):
        path.write_bytes(texts[:-cut])
        with open_plain(path) as file, pytest.raises(Malformed, match="truncated"):
            Cursor(file, len(texts) - cut).walk_texts(3 * STRETCH, length)


def test_texts_beyond_what_a_header_may_have(tmp_path: Path) -> None:
    """Texts of no bytes, which a file of zeros is full of, are walked together too."""
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(2 * MAX_HEADER_BYTES)
    start = MAX_HEADER_BYTES - 200 * STRETCH
    with open_plain(path) as opened:
        cursor = Cursor(opened, 2 * MAX_HEADER_BYTES)
        cursor.seek(start)
        with pytest.raises(Malformed, match="larger than"):
            cursor.walk_texts(MAX_HEADER_BYTES // U64.size, SHORT)


def test_kinds_of_tokens(tmp_path: Path) -> None:
    """Only 2, 3 and 4 count, as whole numbers; -253 and 259 end like 3, and 768 holds a 3."""
    kinds = [Int32(kind) for kind in (1, 3, -253, 259, 768, 4, 2, 1, 4, 3)] + [Int32(1)] * 2000
    kinds[1500] = Int32(3)
    tokens = [f"<|{place}|>" for place in range(len(kinds))]
    tokens[8] = "plain"
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(tokens=tokens, metadata={"tokenizer.ggml.token_type": kinds}))
    for arrays in (False, True):
        found = read_header(path, arrays=arrays).control_tokens
        assert found == tuple(SpecialToken(place, tokens[place]) for place in (1, 5, 6, 9, 1500))
