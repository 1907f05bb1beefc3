"""Records and contents: what is put is there, for its owner alone, until it goes as the limits say."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from puna.errors import Conflict, NotFound, PayloadTooLarge, StateError, StateFull, Unsupported
from puna.state.none import NoState
from puna.state.records import Delete, Kind, Put, Query, Record
from puna.state.schema import MIGRATIONS
from puna.state.sqlite import FILE_NAME, LEAST_ROOM, SqliteState
from puna.state.state import DAY_SECONDS, StateLimits, Stored, change


class Clock:
    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def state(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteState]:
    async with SqliteState(tmp_path / "state", now=clock) as state:
        yield state


def record(id: str, kind: Kind = "response", owner: str = "me", *, previous: str = "", parent: str = "") -> Record:
    return Record(kind=kind, id=id, owner=owner, body={"id": id}, created=1_000_000.0, previous=previous, parent=parent)


async def ids(state: SqliteState, query: Query | None = None, kind: Kind = "response", owner: str = "me") -> list[str]:
    return [one.id for one in (await state.page(kind, owner, query or Query())).records]


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for one in data:
        yield one


async def test_what_is_put_comes_back_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    body = {"id": "r", "text": "half a pair: \ud800, all of ☃", "deep": [1, {"a": None}]}
    one = replace(record("r"), body=body, expires=clock.time + 5)
    async with SqliteState(tmp_path / "deep" / "state", now=clock) as state:
        await state.apply(Put(one))
    async with SqliteState(tmp_path / "deep" / "state", now=clock) as state:
        assert await state.get("response", "r", "me") == one
    assert (tmp_path / "deep" / "state").stat().st_mode & 0o777 == 0o700


async def test_nothing_is_made_before_something_is_kept(tmp_path: Path) -> None:
    async with SqliteState(tmp_path / "state"):
        pass
    assert list(tmp_path.iterdir()) == []


async def test_only_its_owner_sees_changes_and_deletes_it(state: SqliteState) -> None:
    await state.apply(Put(record("r")), Put(record("of-r", "event", parent="r")))
    assert await state.get("response", "r", "other") is None
    assert await state.chain("response", "r", "other") == ()
    assert await ids(state, owner="other") == []
    with pytest.raises(NotFound):
        await state.page("response", "other", Query(after="r"))
    await state.apply(Delete("response", "r", "other"))
    with pytest.raises(Conflict):
        await state.apply(Put(replace(record("r"), owner="other", body={"stolen": True})))
    assert await state.get("response", "r", "me") == replace(record("r"), expires=1_000_000.0 + 30 * DAY_SECONDS)
    assert await ids(state, Query(parent="r"), "event") == ["of-r"]


async def test_pages_in_both_orders_from_both_ends(state: SqliteState) -> None:
    await state.apply(*[Put(record(f"r{number}")) for number in range(7)])
    newest = await state.page("response", "me", Query(limit=3))
    assert ([one.id for one in newest.records], newest.more) == (["r6", "r5", "r4"], True)
    assert await ids(state, Query(limit=3, after="r4")) == ["r3", "r2", "r1"]
    last = await state.page("response", "me", Query(limit=3, after="r1"))
    assert ([one.id for one in last.records], last.more) == (["r0"], False)
    assert await ids(state, Query(limit=3, newest_first=False, after="r1")) == ["r2", "r3", "r4"]
    assert await ids(state, Query(limit=2, before="r3")) == ["r5", "r4"]
    assert await ids(state, Query(limit=2, before="r3", newest_first=False)) == ["r1", "r2"]
    assert await ids(state, Query(after="r5", before="r2", limit=None)) == ["r4", "r3"]
    with pytest.raises(NotFound) as caught:
        await state.page("response", "me", Query(before="nobody"))
    assert caught.value.param == "before"


async def test_a_change_keeps_its_place_and_its_metadata_is_found(state: SqliteState) -> None:
    await state.apply(*[Put(record(f"r{number}", "chat")) for number in range(3)])
    changed = {"id": "r0", "metadata": {'a "key"': "x", "n": "1"}}
    await state.apply(Put(replace(record("r0", "chat"), body=changed)))
    assert await ids(state, kind="chat") == ["r2", "r1", "r0"]
    assert await ids(state, Query(where={'a "key"': "x"}), "chat") == ["r0"]
    assert await ids(state, Query(where={'a "key"': "x", "n": "2"}), "chat") == []
    await state.apply(
        *[Put(replace(record(f"r{n}", "chat"), body={"metadata": {"n": "1", "m": f"{n}"}})) for n in (1, 2)]
    )
    assert await ids(state, Query(where={"n": "1"}), "chat") == ["r2", "r1", "r0"]
    assert await ids(state, Query(where={"n": "1"}, after="r2", limit=1), "chat") == ["r1"]
    assert await ids(state, Query(where={"n": "1", "m": "2"}), "chat") == ["r2"]
    await state.apply(Put(replace(record("r2", "chat"), body={"metadata": None})), Delete("chat", "r1", "me"))
    assert await ids(state, Query(where={"n": "1"}), "chat") == ["r0"]


async def test_all_changes_or_none(state: SqliteState) -> None:
    await state.apply(Put(record("a")))
    with pytest.raises(Conflict):
        await state.apply(Put(record("b")), Delete("response", "a", "me"), Put(record("b"), new=True))
    assert await ids(state) == ["a"]


async def test_what_is_part_of_it_goes_with_it(state: SqliteState) -> None:
    await state.apply(Put(record("c", "conversation")), *[Put(record(f"i{n}", "item", parent="c")) for n in range(3)])
    assert await ids(state, Query(parent="c", newest_first=False), "item") == ["i0", "i1", "i2"]
    assert await ids(state, kind="item") == []
    await state.apply(Delete("conversation", "c", "me"))
    assert await ids(state, Query(parent="c"), "item") == []


async def test_a_chain_oldest_first_and_from_behind_a_gap(state: SqliteState) -> None:
    await state.apply(*[Put(record(f"r{n}", previous=f"r{n - 1}" if n else "")) for n in range(2000)])
    chain = await state.chain("response", "r1999", "me")
    assert [one.id for one in chain] == [f"r{n}" for n in range(2000)]
    await state.apply(Delete("response", "r1500", "me"))
    assert [one.id for one in await state.chain("response", "r1502", "me")] == ["r1501", "r1502"]
    assert await state.chain("response", "nobody", "me") == ()
    await state.apply(Put(record("loop", previous="loop")))
    assert [one.id for one in await state.chain("response", "loop", "me")] == ["loop"]


async def test_what_is_over_is_not_seen_and_then_goes(state: SqliteState, clock: Clock) -> None:
    content = await state.contents.add(pieces(b"some ", b"bytes"), most=10)
    await state.apply(
        Put(replace(record("f", "file"), expires=clock.time + 5, content=content.digest, content_size=10)),
        Put(record("part", "part", parent="f")),
    )
    clock.time += 5
    assert await state.get("file", "f", "me") is None
    assert await ids(state, kind="file") == []
    clock.time += 60
    await state.apply(Put(record("r")))
    assert state.contents.path(content.digest) is None
    assert await ids(state, Query(parent="f"), "part") == []
    clock.time += 30 * DAY_SECONDS
    assert await ids(state) == [], "an answer goes after the days of the settings"


async def test_at_the_limit_the_oldest_answers_go_and_files_do_not(tmp_path: Path) -> None:
    async with SqliteState(tmp_path, StateLimits(records=4, bytes=0, seconds=0)) as state:
        await state.apply(
            Put(record("f", "file")), Put(record("c", "conversation")), Put(record("i", "item", parent="c"))
        )
        await state.apply(Put(record("r0")))
        await state.apply(Put(record("i2", "item", parent="c")))
        assert await ids(state) == [], "not the conversation that grows, though it is older"
        await state.apply(Put(record("r1")))
        assert await ids(state, kind="conversation") == []
        await state.apply(*[Put(record(f"f{n}", "file")) for n in range(3)])
        with pytest.raises(StateFull):
            await state.apply(Put(record("f3", "file")))
        with pytest.raises(StateFull):
            await state.apply(Put(record("r2")))
        await state.apply(Put(record("r9", owner="other")))
        assert len(await ids(state, kind="file")) == 4
        await state.apply(Delete("file", "f", "me"))
        await state.apply(Put(record("r2")))


async def test_bytes_are_counted_with_contents(tmp_path: Path) -> None:
    async with SqliteState(tmp_path, StateLimits(records=0, bytes=1000, seconds=0)) as state:
        content = await state.contents.add(pieces(b"x" * 900), most=1000)
        held = replace(record("f", "file"), content=content.digest, content_size=content.size)
        await state.apply(Put(held))
        with pytest.raises(StateFull):
            await state.apply(Put(replace(record("r"), body={"text": "y" * 200})))
        await state.apply(Put(replace(held, content=None, content_size=0)))
        assert state.contents.path(content.digest) is None
        await state.apply(Put(replace(record("r"), body={"text": "y" * 200})))


async def test_contents_are_shared_and_go_with_the_last(state: SqliteState) -> None:
    first, second = [await state.contents.add(pieces(b"the same"), most=8) for _ in range(2)]
    assert first == second == Stored(first.digest, 8)
    for id in ("a", "b"):
        await state.apply(Put(replace(record(id, "file"), content=first.digest, content_size=8)))
    await state.apply(Delete("file", "a", "me"))
    assert await state.contents.read(first.digest, most=8) == b"the same"
    await state.apply(Delete("file", "b", "me"))
    assert state.contents.path(first.digest) is None
    with pytest.raises(StateError):
        await state.apply(Put(replace(record("c", "file"), content=first.digest)))


async def test_nothing_becomes_part_of_what_is_gone(state: SqliteState) -> None:
    await state.apply(Put(record("c", "conversation")))
    for owner, parent in (("me", "nothing"), ("other", "c")):
        with pytest.raises(NotFound):
            await state.apply(Put(record("i", "item", owner, parent=parent)))
    with pytest.raises(NotFound):
        await state.apply(Delete("conversation", "c", "me"), Put(record("i", "item", parent="c")))
    assert await ids(state, kind="conversation") == ["c"]


async def test_what_was_read_is_put_over_itself_alone(state: SqliteState) -> None:
    read = record("r")
    with pytest.raises(Conflict):
        await state.apply(Put(replace(read, body={"n": 1}), over=read))
    await state.apply(Put(read))
    await state.apply(Put(replace(read, body={"n": 1}), over=read))
    with pytest.raises(Conflict):
        await state.apply(Put(replace(read, body={"n": 2}), over=read))

    async def found() -> Record:
        one = await state.get("response", "r", "me")
        if one is None:
            raise NotFound("gone")
        return one

    def more(one: Record) -> Record:
        return replace(one, body={"n": int(str(one.body["n"])) + 1})

    await asyncio.gather(*(change(state, found, more) for _ in range(10)))
    assert (await found()).body == {"n": 11}
    with pytest.raises(NotFound):
        await asyncio.gather(state.apply(Delete("response", "r", "me")), change(state, found, more))
    assert await state.get("response", "r", "me") is None


async def test_too_large_damaged_and_broken_off_contents(state: SqliteState, tmp_path: Path) -> None:
    with pytest.raises(PayloadTooLarge):
        await state.contents.add(pieces(b"x" * 9), most=8)

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await state.contents.add(broken(), most=8)
    assert list((tmp_path / "state" / "contents").iterdir()) == []
    stored = await state.contents.add(pieces(b"bytes"), most=8)
    path = state.contents.path(stored.digest)
    assert path is not None
    path.write_bytes(b"other")
    with pytest.raises(StateError, match="damaged"):
        await state.contents.read(stored.digest, most=8)


async def test_contents_that_nobody_claimed_go_at_a_start(tmp_path: Path) -> None:
    async with SqliteState(tmp_path) as state:
        old, new = [await state.contents.add(pieces(data), most=8) for data in (b"old", b"new")]
    path = state.contents.path(old.digest)
    assert path is not None
    os.utime(path, (0, 0))
    async with SqliteState(tmp_path) as state:
        await state.apply()
        assert state.contents.path(old.digest) is None
        assert state.contents.path(new.digest) is not None


async def test_what_one_server_adds_another_does_not_remove(tmp_path: Path) -> None:
    """At every moment between the bytes and their record."""
    async with SqliteState(tmp_path) as one, SqliteState(tmp_path) as other:
        kept = await other.contents.add(pieces(b"same"), most=8)
        await other.apply(Put(file_of("theirs", kept)))
        again = await one.contents.add(pieces(b"same"), most=8)
        await other.apply(Delete("file", "theirs", "me"))
        await one.apply(Put(file_of("ours", again)))
        assert await other.contents.read(again.digest, most=8) == b"same"
        await other.apply(Delete("file", "ours", "me"))
        assert one.contents.path(again.digest) is None

        left = await one.contents.add(pieces(b"left"), most=8)
        await other.discard(left.digest)
        assert one.contents.path(left.digest) is not None
        await one.discard(left.digest)
        assert other.contents.path(left.digest) is None


async def test_servers_that_add_and_delete_the_same_bytes_at_once(tmp_path: Path) -> None:
    async def again_and_again(state: SqliteState, name: str) -> None:
        for number in range(40):
            stored = await state.contents.add(pieces(b"the same"), most=8)
            await state.apply(Put(file_of(f"{name}{number}", stored)))
            assert await state.contents.read(stored.digest, most=8) == b"the same"
            await state.apply(Delete("file", f"{name}{number}", "me"))

    async with SqliteState(tmp_path) as one, SqliteState(tmp_path) as two, SqliteState(tmp_path) as three:
        await asyncio.gather(*(again_and_again(state, name) for state, name in ((one, "a"), (two, "b"), (three, "c"))))
        assert [path.name for path in (tmp_path / "contents").glob("sha256-*")] == []


async def test_what_a_killed_server_marked_goes_in_time(tmp_path: Path) -> None:
    async with SqliteState(tmp_path) as state:
        stored = await state.contents.add(pieces(b"killed"), most=8)
        path = state.contents.path(stored.digest)
        assert path is not None
        (mark,) = (tmp_path / "contents").glob("*.awaited-*")
        theirs = mark.with_name(f"{stored.digest.filename}.awaited-theirs")
        mark.rename(theirs)
    for one in (path, theirs):
        os.utime(one, (0, 0))
    async with SqliteState(tmp_path) as state:
        await state.apply()
        assert list((tmp_path / "contents").glob("sha256-*")) == []


async def test_a_newer_file_and_a_damaged_one_are_told(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()
    async with SqliteState(tmp_path) as state:
        with pytest.raises(StateError, match="newer version"):
            await state.get("response", "r", "me")
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    async with SqliteState(tmp_path) as state:
        with pytest.raises(StateError, match=f"{FILE_NAME}.* Move that file away"):
            await state.get("response", "r", "me")


async def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    async with SqliteState(tmp_path / "file" / "state") as state:
        with pytest.raises(StateError, match="file"):
            await state.apply(Put(record("r")))


def file_of(id: str, stored: Stored) -> Record:
    return replace(record(id, "file"), content=stored.digest, content_size=stored.size)


async def test_a_content_that_no_record_came_for_is_discarded(tmp_path: Path) -> None:
    async with SqliteState(tmp_path) as state:
        alone = await state.contents.add(pieces(b"alone"), most=10)
        await state.discard(alone.digest)
        assert state.contents.path(alone.digest) is None
        shared = await state.contents.add(pieces(b"shared"), most=10)
        await state.apply(Put(file_of("a", shared)))
        await state.contents.add(pieces(b"shared"), most=10)
        await state.discard(shared.digest)
        assert await state.contents.read(shared.digest, most=10) == b"shared"
        await state.discard(shared.digest)
        assert await state.contents.read(shared.digest, most=10) == b"shared"


async def test_a_content_that_is_added_again_stays_for_its_new_record(tmp_path: Path) -> None:
    async with SqliteState(tmp_path) as state:
        first = await state.contents.add(pieces(b"same"), most=10)
        await state.apply(Put(file_of("a", first)))
        again = await state.contents.add(pieces(b"same"), most=10)
        await state.apply(Delete("file", "a", "me"))
        await state.apply(Put(file_of("b", again)))
        await state.apply(Put(file_of("b", again)))
        assert await state.contents.read(again.digest, most=10) == b"same"
        await state.apply(Delete("file", "b", "me"))
        assert state.contents.path(again.digest) is None


async def test_one_server_of_a_state_claims_a_work(tmp_path: Path) -> None:
    async with SqliteState(tmp_path) as second:
        async with SqliteState(tmp_path) as first:
            assert await first.claim("work")
            assert await first.claim("work")
            assert not await second.claim("work")
            assert await second.claim("other")
        assert await second.claim("work")


async def test_what_is_one_servers_own_is_seen_by_the_others_until_it_ends(tmp_path: Path) -> None:
    async with SqliteState(tmp_path) as second:
        async with SqliteState(tmp_path) as first:
            assert not await second.claimed("mine")
            assert await first.claim("mine", own=True)
            assert await first.claimed("mine")
            assert await second.claimed("mine")
            await second.apply()
            killed = tmp_path / "theirs.own.lock"
            killed.touch()
        assert not await second.claimed("mine")
        assert not await second.claimed("")
    async with SqliteState(tmp_path) as third:
        await third.apply()
        assert not killed.exists()
    assert not list(tmp_path.glob("*.own.lock"))


async def test_looking_for_work_makes_no_file(tmp_path: Path) -> None:
    async with SqliteState(tmp_path / "state") as state:
        assert await state.everyones("batch") == ()
        assert await state.everyones("batch", {"work": "left"}) == ()
    assert not (tmp_path / "state").exists()


async def test_a_state_that_keeps_nothing() -> None:
    async with NoState() as state:
        assert await state.get("response", "r", "me") is None
        assert (await state.page("response", "me", Query())).records == ()
        with pytest.raises(Unsupported, match="PUNA_STATE=off"):
            await state.apply(Put(record("r")))
        with pytest.raises(Unsupported, match="PUNA_STATE=off"):
            await state.contents.add(pieces(b""), most=1)


WRITER = """
import asyncio, sys
from pathlib import Path
from puna.state.records import Put, Record
from puna.state.sqlite import SqliteState

async def main():
    async with SqliteState(Path(sys.argv[1])) as state:
        start = int(sys.argv[2])
        for number in range(start, start + 1_000_000):
            pair = [Record(kind="line", id=f"{number}-{half}", owner="", body={}, created=0.0) for half in "ab"]
            await state.apply(*map(Put, pair))
            if number == start + 20:
                print("begun", flush=True)

asyncio.run(main())
"""


def killed_writer(directory: Path, start: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(directory), str(start)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"begun\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()


async def test_killed_at_any_moment_nothing_half_is_there(tmp_path: Path) -> None:
    for life in range(3):
        killed_writer(tmp_path, life * 1_000_000)
        async with SqliteState(tmp_path) as state:
            found = [one.id for one in (await state.page("line", "", Query(limit=None))).records]
        assert len(found) >= 40 * (life + 1)
        assert len(found) % 2 == 0
        assert len(set(found)) == len(found)


async def test_what_cannot_be_kept_is_told_before_it_is_made(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteState(tmp_path, StateLimits(records=2), now=clock) as state:
        await state.check_room("me")
        await state.apply(Put(record("a")), Put(record("b")))
        await state.check_room("me")  # the oldest answer would go
        await state.apply(Delete("response", "a", "me"), Delete("response", "b", "me"))
        await state.apply(Put(record("c", "file")), Put(record("d", "file")))
        with pytest.raises(StateFull, match="2 records"):
            await state.check_room("me")
        await state.check_room("you")
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=LEAST_ROOM - 1))
        with pytest.raises(StateError, match="is left on the disk") as full:
            await state.check_room("you")
        assert full.value.code == "disk_full"


async def test_a_clock_that_is_set_back_does_not_put_off_that_what_ended_is_removed(
    tmp_path: Path, clock: Clock
) -> None:
    async with SqliteState(tmp_path, now=clock) as state:
        await state.apply(Put(replace(record("a"), expires=clock.time - 20_000)))
        await state.apply(Put(replace(record("b"), expires=clock.time - 20_000)))
        clock.time -= 10_000
        await state.apply(Put(record("c")))
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        assert database.execute("SELECT id FROM records").fetchall() == [("c",)]
