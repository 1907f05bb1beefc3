"""What the engine saved of a slot: it is given back to it whole, or not at all."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.engine.deposit import Deposit, kind_of
from puna.engine.llama.saved import SavedSlots

KIND = kind_of(["llama"])
TOKENS = array("i", range(100))


def kept(root: Path, content: bytes, limit: int = 1 << 30) -> tuple[SavedSlots, str | None]:
    saved = SavedSlots(Deposit(root, KIND, limit))
    part = saved.part()
    part.write_bytes(content)
    return saved, saved.keep(part, TOKENS)


def test_it_is_found_again_by_another_server(tmp_path: Path) -> None:
    _, name = kept(tmp_path, b"state")
    assert name is not None
    again = SavedSlots(Deposit(tmp_path, KIND, 1 << 30))
    assert again.all() == {name: TOKENS}
    path = again.file(name)
    assert path is not None
    assert path.read_bytes() == b"state"
    assert path.stat().st_mode & 0o077 == 0


def test_what_was_not_written_is_not_saved(tmp_path: Path) -> None:
    saved = SavedSlots(Deposit(tmp_path, KIND, 1 << 30))
    assert saved.keep(saved.part(), TOKENS) is None
    assert saved.all() == {}


def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    saved, name = kept(tmp_path, b"state")
    assert name is not None
    saved.forget([name, "00"])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert saved.file(name) is None


def test_it_keeps_to_the_limit_of_all(tmp_path: Path) -> None:
    for number in range(10):
        saved = SavedSlots(Deposit(tmp_path, KIND, 10_000))
        part = saved.part()
        part.write_bytes(bytes([number]) * 2000)
        assert saved.keep(part, array("i", [number] * 50)) is not None
        assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 10_000


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["record", "file"]), st.integers(0, 400), st.sampled_from(["cut", "change", "delete", "more"]))
def test_a_damaged_one_is_never_given_to_the_engine(tmp_path: Path, which: str, at: int, how: str) -> None:
    saved, name = kept(tmp_path, bytes(range(256)) * 2)
    assert name is not None
    whole = saved.file(name)
    assert whole is not None
    path = whole if which == "file" else whole.with_suffix("")
    data = bytearray(path.read_bytes())
    match how:
        case "cut":
            path.write_bytes(data[:at])
        case "change":
            data[at] ^= 1
            path.write_bytes(data)
        case "delete":
            path.unlink()
        case "more":
            path.write_bytes(bytes(data) + b"!")
    assert saved.file(name) is None
    assert saved.all() == {}


def test_a_place_that_is_gone_is_told(tmp_path: Path) -> None:
    saved = SavedSlots(Deposit(tmp_path / "p", KIND, 1 << 30))
    (tmp_path / "p" / KIND).rmdir()
    (tmp_path / "p").rmdir()
    (tmp_path / "p").touch()
    with pytest.raises(OSError, match="p"):
        saved.part()


def test_a_pipe_in_place_of_the_engine_s_file_is_not_given_to_it(tmp_path: Path) -> None:
    """Which would wait for whoever writes to it."""
    saved, name = kept(tmp_path, b"state")
    assert name is not None
    path = saved.file(name)
    assert path is not None
    path.unlink()
    os.mkfifo(path)
    assert saved.file(name) is None
