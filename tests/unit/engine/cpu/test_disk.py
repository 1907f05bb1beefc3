"""Blocks on the disk: a loop that finds them computes less and tells the same, whatever became of the files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.cpu_loop import Bench, prompt
from fakes.cpu_model import BLOCK
from puna.engine.cpu.backlog import CHAINS, Backlog, Touch, Write
from puna.engine.cpu.disk import Disk
from puna.engine.cpu.loop import Cancel
from puna.engine.deposit import Deposit, kind_of

KIND = kind_of(["fake"])


def bench(root: Path, limit: int = 1 << 30, **said: int | bool) -> Bench:
    """As after a start: nothing is in memory."""
    return Bench(disk=Disk(Deposit(root, KIND, limit)), **said)  # type: ignore[arg-type]


def asked(on: Bench, number: int, text: list[int], **said: object) -> list[int]:
    on.generate(number, text, **{"max_tokens": 20, "ignore_eos": True, **said})
    on.run()
    return on.tokens(number)


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("stateful", [False, True])
def test_the_next_turn_after_a_restart_computes_what_is_new_and_less_than_a_block(
    tmp_path: Path, stateful: bool
) -> None:
    first, text = bench(tmp_path, stateful=stateful), prompt(100)
    said = asked(first, 1, text)
    first.settle()
    turn = [*text, *said, *prompt(10, seed=2)]
    second, plain = bench(tmp_path, stateful=stateful), Bench(stateful=stateful)
    assert asked(second, 2, turn) == asked(plain, 2, turn)
    assert second.end(2).cached_tokens == (len(text) + len(said) - 1) // BLOCK * BLOCK == 96
    assert second.model.computed == plain.model.computed - 96
    assert asked(second, 3, turn) == asked(plain, 3, turn)
    assert second.end(3).cached_tokens == len(turn) - 1


def test_two_that_begin_alike_read_once(tmp_path: Path) -> None:
    first, text = bench(tmp_path), prompt(320)
    asked(first, 1, text)
    first.settle()
    second = bench(tmp_path)
    for number in (1, 2):
        second.generate(number, [*text, 50 + number], max_tokens=3)
    second.run()
    assert [second.end(number).cached_tokens for number in (1, 2)] == [320, 320]
    assert second.model.computed == 1 + 1 + 2 + 2


def test_others_go_on_while_the_disk_is_read(tmp_path: Path) -> None:
    first, text = bench(tmp_path), prompt(320)
    asked(first, 1, text)
    first.settle()
    second = bench(tmp_path)
    second.generate(1, prompt(40, seed=9), max_tokens=5, ignore_eos=True)
    second.generate(2, text, max_tokens=5)
    assert second.step()
    assert second.busy() == 2
    second.run()
    assert second.tokens(1) == asked(Bench(), 1, prompt(40, seed=9), max_tokens=5)
    assert second.end(2).cached_tokens == 288


def test_who_goes_away_while_the_disk_is_read_leaves_nothing_held(tmp_path: Path) -> None:
    first, text = bench(tmp_path), prompt(320)
    asked(first, 1, text)
    first.settle()
    second = bench(tmp_path)
    second.generate(1, text)
    assert not second.step()
    second.loop.put(Cancel(1))
    second.run()
    assert second.told[1] == []
    assert (second.cache.used, second.cache.open) == (0, second.cache.capacity)
    assert asked(second, 2, text) == asked(Bench(), 2, text)


def test_the_slots_count_those_that_the_disk_is_read_for(tmp_path: Path) -> None:
    first, text = bench(tmp_path), prompt(320)
    asked(first, 1, text)
    first.settle()
    second = bench(tmp_path, slots=1)
    second.generate(1, text, max_tokens=3)
    second.generate(2, prompt(5), max_tokens=3)
    assert not second.step()
    second.run()
    assert second.tokens(2) == asked(Bench(), 2, prompt(5), max_tokens=3)


def work(on: Bench) -> None:
    """Until nothing runs: the disk has done what it was told before each step."""
    while on.step():
        on.loop.write_behind()
        on.disk_done()


@pytest.mark.parametrize(("share", "written"), [(1e-9, 1), (1e9, 3 + 12)])
def test_beside_work_writing_takes_no_more_than_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, written: int
) -> None:
    """What the first block took has to be paid with time in which none is written."""
    monkeypatch.setattr("puna.engine.cpu.loop.SHARE", share)
    on = bench(tmp_path)
    on.generate(1, prompt(100), max_tokens=3)
    on.generate(2, prompt(10, seed=3), max_tokens=400, ignore_eos=True)
    work(on)
    assert len(files(tmp_path)) == written
    on.settle()
    assert len(files(tmp_path)) == 3 + 12


def test_a_killed_server_loses_of_a_conversation_that_never_rests_its_open_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("puna.engine.cpu.loop.SHARE", 1e9)
    first, text, before = bench(tmp_path), prompt(100), 0
    for turn in range(4):
        first.generate(turn, text, max_tokens=20, ignore_eos=True)
        work(first)
        before = len(text) + 20 - 1
        text = [*text, *first.tokens(turn), *prompt(10, seed=turn)]
    second = bench(tmp_path)
    assert asked(second, 9, text) == asked(Bench(), 9, text)
    assert second.end(9).cached_tokens == before // BLOCK * BLOCK


def test_who_asks_again_after_a_kill_finds_what_was_computed_of_the_answer_that_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("puna.engine.cpu.loop.SHARE", 1e9)
    first, text = bench(tmp_path), prompt(200)
    first.generate(1, text, max_tokens=400, ignore_eos=True)
    for _ in range(20):
        first.step()
        first.loop.write_behind()
        first.disk_done()
    second = bench(tmp_path)
    assert asked(second, 2, text) == asked(Bench(), 2, text)
    assert second.end(2).cached_tokens == 199 // BLOCK * BLOCK


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    on, text = bench(tmp_path), prompt(100)
    asked(on, 1, text)
    on.settle()
    before = [path.stat().st_ino for path in files(tmp_path)]
    asked(on, 2, text)
    asked(on, 3, [*text, 5])
    on.settle()
    assert [path.stat().st_ino for path in files(tmp_path)] == before


def test_a_scored_text_is_not_written(tmp_path: Path) -> None:
    from puna.engine.cpu.loop import Score

    on = bench(tmp_path)
    on.loop.put(Score(1, tuple(prompt(100)), 0))
    on.run()
    on.settle()
    assert files(tmp_path) == []


def test_a_disk_that_takes_nothing_costs_only_time(tmp_path: Path) -> None:
    on, text = bench(tmp_path, limit=10), prompt(100)
    said = asked(on, 1, text)
    on.settle()
    assert files(tmp_path) == []
    assert said == asked(Bench(), 1, text)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 30))
def test_whatever_becomes_of_the_files_no_answer_changes(tmp_path: Path, seed: int) -> None:
    """The fake model notices each token that is not where it was computed for."""
    source = random.Random(seed)
    first, text = bench(tmp_path), prompt(200, seed)
    said = asked(first, 1, text)
    first.settle()
    for path in files(tmp_path):
        data = bytearray(path.read_bytes())
        match source.randrange(8):
            case 0:
                path.unlink()
            case 1:
                path.write_bytes(data[: source.randrange(len(data))])
            case 2:
                data[source.randrange(len(data))] ^= 1 << source.randrange(8)
                path.write_bytes(data)
            case 3:
                other = source.choice(files(tmp_path))
                path.write_bytes(other.read_bytes())
    turn = [*text, *said, *prompt(10, seed=2)]
    second = bench(tmp_path)
    assert asked(second, 2, turn) == asked(Bench(), 2, turn)
    assert second.end(2).cached_tokens % BLOCK == 0
    for path in files(tmp_path):
        path.unlink()


def drained(backlog: Backlog, stored: set[bytes], held: dict[bytes, int]) -> list[object]:
    """All that is to be done, each done at once."""
    done: list[object] = []
    while (todo := backlog.next(stored.__contains__, held.get)) is not None:
        done.append(todo)
        if isinstance(todo, Write):
            stored.add(todo.key)
    return done


def test_of_the_newest_sequence_the_beginning_is_written_first() -> None:
    backlog, stored, held = Backlog(), set[bytes](), {b"a": 1, b"b": 2, b"c": 3, b"x": 4}
    backlog.note(1, (b"x", b"y", b"z"), over=True)
    backlog.note(2, (b"a", b"b", b"c"), over=True)
    backlog.note(3, (), over=True)
    done = drained(backlog, stored, held)
    # 'y' has made room for another: 'z' alone would never be found.
    assert done == [
        Write(b"a", 1), Write(b"b", 2), Write(b"c", 3), Touch((b"a", b"b", b"c")), Write(b"x", 4), Touch((b"x",)),
    ]  # fmt: skip
    assert not backlog


def test_a_sequence_that_grows_is_dated_once_when_it_is_over() -> None:
    backlog, stored, held = Backlog(), set[bytes](), {b"a": 1, b"b": 2, b"x": 3}
    backlog.note(1, (b"x",), over=False)
    backlog.note(2, (b"a",), over=False)
    assert drained(backlog, stored, held) == [Write(b"a", 1), Write(b"x", 3)]
    assert not backlog
    backlog.note(2, (b"a", b"b"), over=False)
    backlog.note(2, (b"a", b"b"), over=True)
    assert drained(backlog, stored, held) == [Write(b"b", 2), Touch((b"a", b"b"))]


def test_of_more_sequences_than_may_wait_the_oldest_are_given_up() -> None:
    backlog = Backlog()
    for number in range(CHAINS + 3):
        backlog.note(number, (number.to_bytes(4, "big"),), over=True)
    done = drained(backlog, set(), dict.fromkeys((number.to_bytes(4, "big") for number in range(CHAINS + 3)), 1))
    assert len(done) == 2 * CHAINS
    assert done[-1] == Touch(((3).to_bytes(4, "big"),))
