"""What registries list is found, and what cannot be looked through is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from yarl import URL

from fakes.registries import TestRegistry
from puna.model.name import Name
from puna.sources.registry import search
from puna.sources.source import Terms, Unlisted
from puna.sources.sources import Sources

from .conftest import NEAR, Place, login


async def test_a_word_in_a_catalogue(
    registry: TestRegistry, place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = place("there")
    for text in ("searched/alpha:1", "searched/alpha:2", "searched/beta:1", "searched/Beta2:1", "other/thing:1"):
        name = Name.parse(f"{registry.host}/{text.lower()}")
        there.put(name)
        await there.push(name)
    here = place("here", allowed=(registry.host, "*.example"))
    found = await here.sources.search("ALPHA", NEAR)
    assert {one.name for one in found.found} >= {f"{registry.host}/searched/alpha:{tag}" for tag in (1, 2)}
    assert all("alpha" in one.name for one in found.found)
    assert found.unlisted == ()
    assert (await here.sources.search("no such word", NEAR)).found == ()

    # Page after page, and what is left out is told.
    monkeypatch.setattr(search, "_PAGE", 2)
    whole = await here.sources.search("searched", NEAR)
    assert len(whole.found) == 4
    monkeypatch.setattr(search, "MOST_FOUND", 1)
    assert "2 more repositories" in (await here.sources.search("searched", NEAR)).unlisted[0].reason
    monkeypatch.setattr(search, "_MOST_PAGES", 1)
    assert "only its first 2 " in (await here.sources.search("searched", NEAR)).unlisted[-1].reason


async def test_a_mirror_lists_the_names_that_it_mirrors(registry: TestRegistry, place: Callable[..., Place]) -> None:
    there = place("there")
    name = Name.parse(f"{registry.host}/proxied-team/mirrored-one:1")
    there.put(name)
    await there.push(name)
    here = place("here", mirrors={"far.example": [URL(f"http://{registry.host}/")]})
    here.net.destinations = replace(here.net.destinations, configured=frozenset({registry.host}))
    found = await here.sources.search("mirrored-one", Terms())
    assert [one.name for one in found.found] == ["far.example/proxied-team/mirrored-one:1"]


async def test_who_may_see_it(guarded: TestRegistry, place: Callable[..., Place]) -> None:
    ada = place("ada", login(guarded.host), allowed=(guarded.host,))
    name = Name.parse(f"{guarded.host}/ada/hidden:1")
    ada.put(name)
    await ada.push(name)
    assert [one.name for one in (await ada.sources.search("hidden", NEAR)).found] == [name.short]
    (told,) = (await place("nobody", allowed=(guarded.host,)).sources.search("hidden", NEAR)).unlisted
    assert (told.source, "access denied" in told.reason) == (guarded.host, True)


async def test_what_cannot_be_searched_says_so(place: Callable[..., Place]) -> None:
    (told,) = (await place("none").sources.search("x")).unlisted
    assert (told.source, "PUNA_REGISTRIES" in told.reason) == ("registries", True)
    (told,) = (await place("dead", allowed=("127.0.0.1:9", "*.example")).sources.search("x", NEAR)).unlisted
    assert (told.source, "cannot be reached" in told.reason) == ("127.0.0.1:9", True)


async def test_a_source_that_does_not_say(place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        title = "the silent one"

        async def search(self, word: str, terms: Terms) -> Any:
            await asyncio.Event().wait()

    monkeypatch.setattr("puna.sources.sources.PATIENCE", 0.01)
    sources = Sources(place("here").library, [Silent()])  # type: ignore[list-item]
    assert (await sources.search("x")).unlisted == (Unlisted("the silent one", "it did not say within 0.01 s"),)
