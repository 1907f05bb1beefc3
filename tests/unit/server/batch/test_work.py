"""Batches at work over a real state: what becomes of lines, whatever answers them and whenever it ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from fakes.waiting import looks_until, turns_until
from puna.errors import Cancelled, StateFull
from puna.model.digest import Digest
from puna.scheduler.behind import Behind
from puna.server.batch import work as module
from puna.server.batch.batch import BatchUsage, RequestBatch
from puna.server.batch.lines import LineFault
from puna.server.batch.work import BatchWork
from puna.server.inside import InsideAnswer
from puna.state.records import Query
from puna.state.sqlite import SqliteState
from puna.state.state import StateLimits


class Routes:
    """Answers as it is told to, by the name in a body. Until `held` is set those wait that are `slow`; none: all."""

    def __init__(self):
        self.asked = Counter()
        self.held = asyncio.Event()
        self.held.set()
        self.slow = set()
        self.answers = {}

    async def __call__(self, path, body, owner, headers):
        name = json.loads(body)["name"]
        self.asked[name] += 1
        if not self.slow or name in self.slow:
            await self.held.wait()
        answers = self.answers.get(name)
        status, more = answers.pop(0) if answers else (200, {})
        said = {"name": name, "usage": {"prompt_tokens": 2, "completion_tokens": 1}}
        return InsideAnswer(status, {"x-request-id": "req_1", **more}, json.dumps(said).encode())


class Clock:
    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


@pytest.fixture
def routes():
    return Routes()


@asynccontextmanager
async def working(state, routes, **options):
    known = {"max_line": 1_000_000, "look_seconds": 0.01} | options
    work = BatchWork(state, routes, lambda: 4, **known)
    work.start()
    try:
        yield work
    finally:
        await work.stop()


async def batch_of(state, names, *, owner="me", expires=None):
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/x", "body": {"model": "m", "name": name}} for name in names
    ]

    async def pieces():
        for line in lines:
            yield json.dumps(line).encode() + b"\n"

    stored = await state.contents.add(pieces(), most=10**9)
    now = time.time()
    return RequestBatch(
        id=f"batch_{owner}_{names[0]}", owner=owner, dialect="any", endpoint="/v1/x", input=stored.digest, created=now,
        expires=now + 3600 if expires is None else expires,
    )  # fmt: skip


async def status(state, batch):
    return RequestBatch.read(await state.get("batch", batch.id, batch.owner))


async def ended(state, batch):
    async def over():
        return (await status(state, batch)).ended

    await looks_until(over, 120, "the end of a batch")
    return await status(state, batch)


async def lines_of(state, batch, file):
    if file is None:
        return {}
    record = await state.get("file", file, batch.owner)
    text = await state.contents.read(record.content, most=10**9)
    found = [json.loads(one) for one in text.splitlines()]
    by_id = {one["custom_id"]: one for one in found}
    assert len(by_id) == len(found)
    return by_id


async def test_all_lines_are_asked_and_kept(tmp_path, routes):
    names = [f"{n}" for n in range(100)]
    async with SqliteState(tmp_path) as state, working(state, routes) as work:
        batch = await batch_of(state, names)
        await work.submit(batch)
        batch = await ended(state, batch)
        assert (batch.status, batch.total, batch.completed, batch.failed) == ("completed", 100, 100, 0)
        assert (batch.usage.input, batch.usage.output) == (200, 100)
        outputs = await lines_of(state, batch, batch.output)
        assert {name: row["response"]["body"]["name"] for name, row in outputs.items()} == {
            name: name for name in names
        }
        # Nothing is left of the work.
        for parent in (batch.work, batch.id):
            assert (await state.page("line", "me", Query(parent=parent, limit=None))).records == ()
    assert routes.asked == Counter(names)


async def test_it_goes_on_where_it_stood(tmp_path, routes):
    names = [f"{n}" for n in range(60)]
    async with SqliteState(tmp_path) as state:
        batch = await batch_of(state, names)
        async with working(state, routes) as work:
            await work.submit(batch)
            await turns_until(lambda: len(routes.asked) > 20, 120, "some lines")
        kept = (await status(state, batch)).completed
        assert 0 < kept < 60
        async with working(state, routes):
            batch = await ended(state, batch)
        assert batch.completed == 60
        assert (await lines_of(state, batch, batch.output)).keys() == set(names)
    # What was under way is asked again, and nothing else.
    assert sum(routes.asked.values()) <= 60 + 5


async def test_answers_that_are_worth_another_try(tmp_path, routes):
    busy = (503, {"x-should-retry": "true", "retry-after": "0"})
    routes.answers = {"a": [busy, busy], "b": [busy] * 3, "c": [(400, {})], "d": [(500, {"x-should-retry": "false"})]}
    async with SqliteState(tmp_path) as state, working(state, routes) as work:
        batch = await batch_of(state, ["a", "b", "c", "d"])
        await work.submit(batch)
        batch = await ended(state, batch)
        assert (batch.completed, batch.failed) == (1, 3)
        errors = await lines_of(state, batch, batch.errors)
    assert {name: row["response"]["status_code"] for name, row in errors.items()} == {"b": 503, "c": 400, "d": 500}
    assert routes.asked == {"a": 3, "b": 3, "c": 1, "d": 1}


async def test_a_batch_expires(tmp_path, routes):
    clock = Clock()
    async with SqliteState(tmp_path) as state, working(state, routes, now=clock) as work:
        waiting = await batch_of(state, ["a", "b"], expires=clock.now)
        await work.submit(waiting)
        assert (await ended(state, waiting)).status == "expired"
        assert routes.asked == {}
        names = [f"{n}" for n in range(10)]
        running = await batch_of(state, names, owner="other", expires=clock.now + 100)
        routes.slow = {"7"}
        routes.held.clear()
        await work.submit(running)
        await turns_until(lambda: routes.asked["7"], 120, "the line that is not answered")
        clock.now += 100
        batch = await ended(state, running)
        assert (batch.status, batch.times["expired"]) == ("expired", clock.now)
        outputs = await lines_of(state, batch, batch.output)
        errors = await lines_of(state, batch, batch.errors)
        assert (outputs.keys() | errors.keys(), outputs.keys() & errors.keys()) == (set(names), set())
        assert {(name, row["error"]["code"]) for name, row in errors.items()} >= {("7", "batch_expired")}


async def test_one_that_is_not_checked_yet_is_cancelled(tmp_path, routes):
    async with SqliteState(tmp_path) as state:
        batch = await batch_of(state, ["a"])
        idle = BatchWork(state, routes, lambda: 1, max_line=1000)
        await idle.submit(batch)
        assert (await idle.cancel(batch)).status == "cancelling"
        assert (await idle.current(batch)).status == "cancelling"
        async with working(state, routes):
            assert (await ended(state, batch)).status == "cancelled"
    assert routes.asked == {}


async def test_batches_take_turns(tmp_path, routes):
    async with SqliteState(tmp_path) as state, working(state, routes, turn_seconds=0.0) as work:
        routes.slow = {f"l{n}" for n in range(20, 100)}
        routes.held.clear()
        large = await batch_of(state, [f"l{n}" for n in range(100)])
        small = await batch_of(state, ["s"], owner="other")
        await work.submit(large)
        await turns_until(lambda: len(routes.asked) == 25, 120, "the large one")
        await work.submit(small)
        await turns_until(lambda: work._job.why == "turn", 120, "the turn of the small one")
        routes.held.set()
        await ended(state, small)
        assert (await ended(state, large)).completed == 100
    assert {name: count for name, count in routes.asked.items() if count != 1} == {}
    assert list(routes.asked).index("s") == 25


async def test_lines_give_way_and_are_asked_again(tmp_path, routes):
    behind = Behind(quiet=0.0)

    async def asked(path, body, owner, headers):
        async with behind.turn(lambda: 1):
            return await Routes.__call__(routes, path, body, owner, headers)

    async def ask(path, body, owner, headers):
        try:
            return await asked(path, body, owner, headers)
        except Cancelled:
            return InsideAnswer()

    async with SqliteState(tmp_path) as state, working(state, ask) as work:
        routes.held.clear()
        batch = await batch_of(state, ["a"])
        await work.submit(batch)
        for times in range(1, 5):
            await turns_until(lambda times=times: routes.asked["a"] == min(times, 4), 120, "the line")
            async with behind.turn(lambda: 1):
                await asyncio.sleep(0)
        assert routes.asked["a"] == 4, "it stays the fourth time"
        routes.held.set()
        assert (await ended(state, batch)).completed == 1


async def test_an_owner_without_room_is_waited_for(tmp_path, routes, monkeypatch):
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    async with SqliteState(tmp_path, StateLimits(records=4)) as state, working(state, routes) as work:
        batch = await batch_of(state, [f"{n}" for n in range(6)])
        await work.submit(batch)
        full = 0
        apply = state.apply

        async def noted(*changes):
            nonlocal full
            try:
                return await apply(*changes)
            except StateFull:
                full += 1
                raise

        state.apply = noted
        await turns_until(lambda: full > 2, 120, "a state that is full")
        assert not (await status(state, batch)).ended
        state._limits = StateLimits()
        assert (await ended(state, batch)).completed == 6


async def test_one_server_of_a_state_works(tmp_path, routes):
    other = Routes()
    async with SqliteState(tmp_path) as mine, SqliteState(tmp_path) as theirs, working(mine, routes) as first:
        batch = await batch_of(mine, ["a"])
        await first.submit(batch)
        await ended(mine, batch)
        async with working(theirs, other) as second:
            batch = await batch_of(theirs, ["b"])
            await second.submit(batch)
            assert (await ended(theirs, batch)).completed == 1
    assert (set(routes.asked), set(other.asked)) == ({"a", "b"}, set())


def test_a_batch_is_kept_whole():
    def batches() -> Iterator[RequestBatch]:
        plain = RequestBatch(
            id="b", owner="o", dialect="d", endpoint="/x", input=Digest.of(b""), created=1.5, expires=2.5
        )
        yield plain
        yield replace(
            plain.to("in_progress", 3.5).to("failed", 4.5), total=3, completed=1, failed=1, model="m", output="f",
            usage=BatchUsage(1, 2, 3, 4), faults=(LineFault("c", "m", None, 2),), errors="e", seconds=3600,
            headers={"a": "b"}, one_model=False, details={"k": [1]},
        )  # fmt: skip

    for batch in batches():
        assert RequestBatch.read(batch.record()) == batch
        assert (batch.record().content is None) == batch.ended
