"""Slots that are saved before anybody needs it, so that a kill costs little, and who waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fakes.waiting import turns_until
from puna.engine.deposit import Deposit, kind_of
from puna.engine.llama.budget import SaveBudget
from puna.engine.llama.saved import SavedSlots
from puna.engine.llama.talks import Talks
from puna.errors import EngineError

TEXT = list(range(100))


class FakeEngine:
    """It writes as many tokens as a slot is said to hold. `asked`: what it was told to do, in order."""

    def __init__(self, directory: Path) -> None:
        self.saved = SavedSlots(Deposit(directory, kind_of(["fake"]), 1 << 30))
        self.asked: list[tuple[str, int]] = []
        self.holds: dict[int, int] = {}
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.fails = self.short = False
        self.works: set[int] = set()

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        slot, action = int(path.split("/")[2].split("?", maxsplit=1)[0]), path.partition("=")[2]
        self.asked.append((action, slot))
        await self.goes_on.wait()
        if action == "save":
            (self.saved.directory / body["filename"]).write_bytes(b"half" if self.fails else b"a slot")
        if self.fails:
            raise EngineError("no")
        return {"n_saved": self.holds[slot], "n_written": 7 if self.short else 6, "timings": {"save_ms": 0.0}}

    def talks(self, slots: int = 2) -> Talks:
        return Talks(slots, self.saved, self.saved.all(), self.post, self.working)

    async def working(self) -> set[int]:
        await asyncio.sleep(0)
        return self.works

    async def answer(self, talks: Talks, text: list[int]) -> int:
        """An answer of three tokens. The slot where it was made."""
        async with talks.placed(text) as slot:
            assert slot is not None
            await asyncio.sleep(0)
            self.holds[slot] = len(text) + 3
            talks.hold(slot, [*text, 1, 2, 3])
        return slot

    def kept(self) -> list[int]:
        """Lengths of what another process would find."""
        return sorted(map(len, self.saved.all().values()))


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path)


async def until(true: Callable[[], bool]) -> None:
    await turns_until(true, 10, "what is saved")


async def nothing_under_way() -> None:
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_what_an_answer_leaves_is_saved_at_once(engine: FakeEngine) -> None:
    talks = engine.talks()
    await engine.answer(talks, TEXT)
    await until(lambda: engine.kept() == [103])
    await engine.answer(talks, [*TEXT, 1, 2, 3, *range(50)])
    await until(lambda: engine.kept() == [156])
    assert engine.asked == [("save", 0)] * 2
    await talks.settle()
    assert engine.asked == [("save", 0)] * 2


async def test_the_next_turn_goes_on_in_its_slot_when_that_is_written(engine: FakeEngine) -> None:
    talks = engine.talks()
    await engine.answer(talks, TEXT)
    engine.goes_on.clear()
    await until(lambda: engine.asked == [("save", 0)])
    turn = asyncio.create_task(engine.answer(talks, [*TEXT, 1, 2, 3, 9]))
    other = asyncio.create_task(engine.answer(talks, list(range(500, 600))))
    assert await other == 1
    assert not turn.done()
    engine.goes_on.set()
    assert await turn == 0
    await talks.settle()


async def test_one_that_cannot_be_saved_is_not_tried_again_and_again(engine: FakeEngine) -> None:
    talks = engine.talks()
    engine.fails = True
    await engine.answer(talks, TEXT)
    await nothing_under_way()
    assert engine.asked == [("save", 0)]
    assert [*engine.saved.directory.iterdir()] == []
    engine.fails = False
    await engine.answer(talks, [*TEXT, 5])
    await until(lambda: engine.kept() == [104])


async def test_a_place_that_takes_nothing_is_not_tried_again_and_again(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.saved, "keep", lambda part, tokens: None)
    talks = engine.talks()
    await engine.answer(talks, TEXT)
    await nothing_under_way()
    assert engine.asked == [("save", 0)]


async def test_an_end_waits_for_what_is_being_saved_and_saves_the_rest(engine: FakeEngine) -> None:
    talks = engine.talks()
    engine.goes_on.clear()
    await engine.answer(talks, TEXT)
    await until(lambda: engine.asked == [("save", 0)])
    await engine.answer(talks, list(range(500, 600)))
    ended = asyncio.create_task(talks.settle())
    await asyncio.sleep(0)
    assert not ended.done()
    engine.goes_on.set()
    await ended
    assert engine.kept() == [103, 103]
    assert engine.asked == [("save", 0), ("save", 1)]


async def test_what_must_not_be_written_yet_is_written_at_the_end(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SaveBudget, "wait", lambda *_: 3600.0)
    talks = engine.talks()
    await engine.answer(talks, TEXT)
    await engine.answer(talks, [*TEXT, 5])
    assert engine.asked == []
    await talks.settle()
    assert engine.kept() == [104]
    await nothing_under_way()


async def test_a_request_that_ends_after_the_end_has_nothing_saved(engine: FakeEngine) -> None:
    talks = engine.talks()
    await talks.settle()
    await engine.answer(talks, TEXT)
    await nothing_under_way()
    assert engine.asked == []


async def test_who_goes_away_while_another_conversation_is_saved_for_him_loses_it_nothing(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SaveBudget, "wait", lambda *_: 3600.0)
    talks = engine.talks(1)
    await engine.answer(talks, TEXT)
    engine.goes_on.clear()
    comer = asyncio.create_task(engine.answer(talks, list(range(500, 600))))
    await until(lambda: engine.asked == [("save", 0)])
    comer.cancel()
    assert isinstance((await asyncio.gather(comer, return_exceptions=True))[0], asyncio.CancelledError)
    engine.goes_on.set()
    await until(lambda: engine.kept() == [103])
    assert await engine.answer(talks, list(range(500, 600))) == 0
    await talks.settle()
    assert engine.kept() == [103, 103]


async def test_nothing_is_asked_of_a_slot_that_still_works_for_somebody_who_has_gone(engine: FakeEngine) -> None:
    """The engine would put it off, and might never come back to it."""
    talks = engine.talks()
    engine.works = {0}
    await engine.answer(talks, TEXT)
    turn = asyncio.create_task(engine.answer(talks, [*TEXT, 1, 2, 3, 9]))
    assert await engine.answer(talks, list(range(500, 600))) == 1
    assert (engine.asked, turn.done()) == ([], False)
    engine.works = set()
    assert await turn == 0
    await talks.settle()
    assert engine.asked[0] == ("save", 0)


async def test_a_slot_that_never_rests_is_not_waited_for_without_end(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("puna.engine.llama.talks.SAVING", 0.02)
    talks = engine.talks()
    engine.works = {0}
    await engine.answer(talks, TEXT)
    assert await engine.answer(talks, [*TEXT, 1, 2, 3, 9]) == 0
    assert engine.asked == []
    talks.stop()


async def test_what_a_full_disk_has_cut_is_not_kept(engine: FakeEngine) -> None:
    """The engine says that it wrote more than there is."""
    talks = engine.talks()
    engine.short = True
    await engine.answer(talks, TEXT)
    await nothing_under_way()
    assert engine.asked == [("save", 0)]
    assert [*engine.saved.directory.iterdir()] == []


async def test_what_is_being_saved_is_not_begun_again(engine: FakeEngine) -> None:
    """Who it was saved for has gone, and others come and go meanwhile."""
    talks = engine.talks()
    engine.works = {0, 1}
    await engine.answer(talks, TEXT)
    await engine.answer(talks, list(range(500, 600)))
    comers = [asyncio.create_task(engine.answer(talks, list(range(800 + n, 900 + n)))) for n in range(4)]
    for comer in comers:
        await asyncio.sleep(0)
        comer.cancel()
    await asyncio.gather(*comers, return_exceptions=True)
    engine.works = set()
    await until(lambda: engine.kept() == [103, 103])
    await nothing_under_way()
    assert sorted(engine.asked) == [("save", 0), ("save", 1)]
