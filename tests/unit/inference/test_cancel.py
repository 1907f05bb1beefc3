"""A request that is cancelled while its prompt is written: its lease ends at once, whatever the writing takes."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from fakes.house import TemplatesHere, ask, events_of, open_house
from fakes.waiting import turns_until
from puna.template.facts import ChatTemplate
from puna.template.languages import TemplateKey


class Held:
    """A template that takes as long as it is held."""

    def __init__(self, template: ChatTemplate, writing: threading.Event, go_on: threading.Event) -> None:
        self._template, self._writing, self._go_on = template, writing, go_on

    def __getattr__(self, name: str) -> Any:
        return getattr(self._template, name)

    def render(self, *arguments: Any, **named: Any) -> str:
        self._writing.set()
        self._go_on.wait(30)
        return self._template.render(*arguments, **named)


@pytest.mark.parametrize("counting", [False, True])
async def test_a_prompt_that_is_being_written_keeps_no_lease(monkeypatch: pytest.MonkeyPatch, counting: bool) -> None:
    writing, go_on = threading.Event(), threading.Event()
    known = TemplatesHere.known

    def held(self: TemplatesHere, key: TemplateKey) -> ChatTemplate | None:
        template = known(self, key)
        return None if template is None else Held(template, writing, go_on)  # type: ignore[return-value]

    async with open_house() as house:
        await events_of(house, ask())
        monkeypatch.setattr(TemplatesHere, "known", held)
        try:
            work = house.inference.counted(ask()) if counting else events_of(house, ask())
            task = asyncio.ensure_future(work)  # type: ignore[arg-type]
            await turns_until(writing.is_set, 20, "the prompt to be written")
            assert house.busy == 1
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            assert house.busy == 0
            assert house.scheduler.waiting == 0
        finally:
            go_on.set()
        await events_of(house, ask())
