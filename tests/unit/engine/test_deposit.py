"""What is deposited comes back whole or not at all, whatever happens to the files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.engine.deposit import ABANDONED, DIGEST, PART, Deposit, DepositError, kind_of

KIND, OTHER = kind_of([1]), kind_of([2])
KEYS = [f"{number:032x}" for number in range(40)]
LARGE = 1 << 30


def got(deposit: Deposit, key: str, size: int) -> bytes | None:
    room = bytearray(size)
    return bytes(room) if deposit.read(key, memoryview(room)) else None


def test_what_was_written_is_read_by_another_process_s_deposit(tmp_path: Path) -> None:
    first = Deposit(tmp_path / "p", KIND, LARGE)
    assert first.write(KEYS[0], b"x" * 100)
    second = Deposit(tmp_path / "p", KIND, LARGE)
    assert second.stored() == {KEYS[0]}
    assert got(second, KEYS[0], 100) == b"x" * 100
    assert got(second, KEYS[1], 100) is None


def test_it_belongs_to_this_user_alone(tmp_path: Path) -> None:
    root = tmp_path / "p"
    root.mkdir(mode=0o755)
    Deposit(root, KIND, LARGE).write(KEYS[0], b"secret")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (root, root / KIND, root / KIND / KEYS[0])]
    assert modes == [0o700, 0o700, 0o600]


def test_a_place_that_is_no_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("a file")
    with pytest.raises(DepositError):
        Deposit(tmp_path / "p", KIND, LARGE)
    (tmp_path / "q").symlink_to(tmp_path)
    with pytest.raises(DepositError, match="no directory"):
        Deposit(tmp_path / "q", KIND, LARGE)


def test_bytes_of_another_kind_or_key_are_not_read(tmp_path: Path) -> None:
    """A file that was moved or copied is not what its new name says."""
    one, other = (Deposit(tmp_path, kind, LARGE) for kind in (KIND, OTHER))
    one.write(KEYS[2], b"abc")
    other.write(KEYS[2], b"abc")
    for target in (tmp_path / KIND / KEYS[1], tmp_path / OTHER / KEYS[0]):
        one.write(KEYS[0], b"abc")
        (tmp_path / KIND / KEYS[0]).rename(target)
    assert got(one, KEYS[1], 3) is None
    assert got(other, KEYS[0], 3) is None


Damage = Callable[[bytes], bytes]


def damages(size: int) -> st.SearchStrategy[Damage]:
    places = st.integers(0, size - 1)
    return st.one_of(
        places.map(lambda end: lambda data: data[:end]),
        st.binary(min_size=1, max_size=9).map(lambda more: lambda data: data + more),
        st.tuples(places, st.integers(1, 255)).map(
            lambda at: lambda data: data[: at[0]] + bytes([data[at[0]] ^ at[1]]) + data[at[0] + 1 :]
        ),
        st.tuples(places, st.integers(1, 20)).map(
            lambda at: lambda data: data[: at[0]] + bytes(at[1]) + data[at[0] + at[1] :] + b"!"
        ),
        st.binary(max_size=2 * size).map(lambda other: lambda _: other),
    )


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=60), data=st.data())
def test_a_damaged_file_is_never_read_and_is_removed(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    deposit = Deposit(tmp_path, KIND, LARGE)
    deposit.write(KEYS[0], content)
    path = tmp_path / KIND / KEYS[0]
    whole = path.read_bytes()
    damaged = data.draw(damages(len(whole)))(whole)
    path.write_bytes(damaged)
    assert got(deposit, KEYS[0], len(content)) == (content if damaged == whole else None)
    assert path.exists() == (damaged == whole)


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a loop", "a directory", "a terabyte"])
def test_what_is_no_file_of_its_length_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    """To open a pipe for reading would wait for whoever writes to it."""
    deposit = Deposit(tmp_path, KIND, LARGE)
    path = tmp_path / KIND / KEYS[0]
    match kind:
        case "a pipe":
            os.mkfifo(path)
        case "a device":
            path.symlink_to("/dev/zero")
        case "a loop":
            path.symlink_to(path)
        case "a directory":
            path.mkdir()
        case _:
            path.touch()
            os.truncate(path, 1 << 40)
    assert got(deposit, KEYS[0], 3) is None
    assert deposit.get(KEYS[0], 1000) is None


def test_it_can_be_deleted_at_any_moment(tmp_path: Path) -> None:
    root = tmp_path / "p"
    deposit = Deposit(root, KIND, LARGE)
    deposit.write(KEYS[0], b"abc")
    (root / KIND / KEYS[0]).unlink()
    (root / KIND).rmdir()
    root.rmdir()
    assert got(deposit, KEYS[0], 3) is None
    deposit.touch([KEYS[0]])
    assert deposit.write(KEYS[0], b"abc")
    assert got(deposit, KEYS[0], 3) == b"abc"


def _size(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def test_what_was_left_longest_ago_goes_first_and_the_end_of_a_text_before_its_beginning(tmp_path: Path) -> None:
    size = 100
    limit = 20 * (size + DIGEST)
    other, deposit = Deposit(tmp_path, OTHER, limit), Deposit(tmp_path, KIND, limit)
    other.write(KEYS[0], bytes(size))
    for age, key in enumerate(KEYS[:10]):
        deposit.write(key, bytes(size))
        os.utime(tmp_path / KIND / key, (age + 1000, age + 1000))
    os.utime(tmp_path / OTHER / KEYS[0], (1, 1))
    deposit.touch(KEYS[:3])
    for key in KEYS[10:25]:
        assert deposit.write(key, bytes(size))
        assert _size(tmp_path) <= limit
    left = deposit.stored()
    assert not other.stored()
    assert not left & set(KEYS[3:8])
    assert left >= {*KEYS[:2], *KEYS[15:25]}
    deposit.touch(KEYS[15:25])
    deposit.touch(KEYS[:2])
    for key in KEYS[25:33]:
        deposit.write(key, bytes(size))
    assert KEYS[0] in deposit.stored()
    assert (KEYS[24] in deposit.stored()) <= (KEYS[15] in deposit.stored())


def test_what_is_more_than_all_that_may_be_is_not_written(tmp_path: Path) -> None:
    deposit = Deposit(tmp_path, KIND, 100)
    assert not deposit.write(KEYS[0], bytes(100))
    assert _size(tmp_path) == 0


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """The directory is one that the user names: what is not named as ours stays."""
    kept = [tmp_path / "letter.txt", tmp_path / "photos" / "0", tmp_path / KIND / "notes.txt"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (1, 1))
    deposit = Deposit(tmp_path, KIND, 300)
    for key in KEYS:
        deposit.write(key, bytes(10))
    assert all(path.exists() for path in kept)
    assert len(deposit.stored()) < 10


def test_what_a_killed_process_was_writing_is_removed_in_time(tmp_path: Path) -> None:
    deposit = Deposit(tmp_path, KIND, LARGE)
    old, new = (tmp_path / KIND / f"{name}{PART}" for name in ("aa", "bb"))
    for path in (old, new):
        path.write_bytes(b"half")
    long_ago = old.stat().st_mtime - ABANDONED - 1
    os.utime(old, (long_ago, long_ago))
    deposit.prune()
    assert (old.exists(), new.exists()) == (False, True)
    assert deposit.stored() == set()


def test_a_process_killed_at_any_instant_leaves_nothing_wrong(tmp_path: Path) -> None:
    """It writes and reads for ever, the same keys with contents that tell whose they are."""
    program = f"""
        import itertools
        from pathlib import Path
        from puna.engine.deposit import Deposit
        deposit = Deposit(Path({str(tmp_path)!r}), {KIND!r}, 2_000_000)
        print("on", flush=True)
        for number in itertools.count():
            deposit.write(f"{{number % 8:032x}}", bytes([number % 8]) * 300_000)
    """
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            deposit = Deposit(tmp_path, KIND, 2_000_000)
            found = 0
            while found < 20:
                for number in range(8):
                    content = got(deposit, f"{number:032x}", 300_000)
                    assert content in {None, bytes([number]) * 300_000}
                    found += content is not None
            writer.kill()
        for number in range(8):
            assert got(deposit, f"{number:032x}", 300_000) in {None, bytes([number]) * 300_000}
