"""Requests begin one after another, and what takes no time waits for none of them."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from puna.server.gate import AHEAD, Gate


class House:
    """An app behind turns; `said` is what its requests did, and what else the loop did meanwhile."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.gate = Gate(self._app)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.said.append(f"begin {scope['name']}")
        if scope["reads"]:
            await receive()
            self.said.append(f"read {scope['name']}")

    def ask(self, name: str, path: str = "/api/chat", *, body: asyncio.Future[Any] | None = None) -> asyncio.Task[None]:
        async def receive() -> Any:
            if body is not None:
                return await body
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Any) -> None:
            raise AssertionError(message)

        scope = {"type": "http", "path": path, "name": name, "reads": path not in AHEAD}
        return asyncio.create_task(self.gate(scope, receive, send))

    async def tick(self) -> None:
        """What a socket would do that the loop looks at between turns."""
        for number in range(3):
            await asyncio.sleep(0)
            self.said.append(f"loop {number}")


async def test_the_loop_runs_between_requests_that_came_together_in_their_order():
    house = House()
    tasks = [house.ask(name) for name in "abcd"]
    await asyncio.gather(*tasks, house.tick())
    own = [said for said in house.said if not said.startswith("loop")]
    assert own == [f"{what} {name}" for name in "abcd" for what in ("begin", "read")]
    assert house.said.index("loop 2") < house.said.index("begin d")


@pytest.mark.parametrize("path", sorted(AHEAD))
async def test_what_takes_no_time_waits_for_none(path):
    house = House()
    tasks = [house.ask("a"), house.ask("b"), house.ask("c"), house.ask("quick", path)]
    await asyncio.gather(*tasks)
    assert house.said.index("begin quick") < house.said.index("begin b")


async def test_who_has_gone_is_passed_over():
    house = House()
    first, gone, last = house.ask("a"), house.ask("gone"), house.ask("b")
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(first, gone, last, return_exceptions=True)
    assert house.said == ["begin a", "read a", "begin b", "read b"]


async def test_bodies_that_end_together_go_on_in_turns():
    house, body = House(), asyncio.get_running_loop().create_future()
    tasks = [house.ask(name, body=body) for name in "abcd"]
    for _ in range(20):
        await asyncio.sleep(0)
    assert house.said == [f"begin {name}" for name in "abcd"]
    house.said.clear()
    body.set_result({"type": "http.request", "body": b"{}", "more_body": False})
    await asyncio.gather(*tasks, house.tick())
    assert [said for said in house.said if not said.startswith("loop")] == [f"read {name}" for name in "abcd"]
    assert house.said.index("loop 2") < house.said.index("read d")


async def test_those_that_come_while_a_turn_changes_hands_wait_for_theirs():
    """Each would begin at once, beside the one that has waited."""
    house = House()
    tasks = [house.ask("a"), house.ask("b")]
    begun = []
    for number in range(40):
        await asyncio.sleep(0)
        begun.append(sum(said.startswith("begin") for said in house.said))
        if number < 10:
            tasks.append(house.ask(str(number)))
    await asyncio.gather(*tasks)
    assert [said.split()[1] for said in house.said if said.startswith("begin")] == ["a", "b", *map(str, range(10))]
    assert max(later - before for before, later in itertools.pairwise(begun)) == 1
