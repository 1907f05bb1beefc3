"""Search in a registry: its catalogue of repositories, and the tags of those that have a word."""

from __future__ import annotations

import asyncio
import json
from functools import partial

from yarl import URL

from puna.errors import SourceError
from puna.sources.registry.access import Access
from puna.sources.registry.endpoint import Catalogue
from puna.sources.source import Found, Searched, Unlisted
from puna.types import JsonObject

MOST_FOUND = 20
"""Repositories whose tags are asked for."""
_PAGE = 1000
_MOST_PAGES = 20
_MAX_BYTES = 8 * 1024 * 1024


async def search(word: str, catalogue: Catalogue, access: Access) -> Searched:
    """Every tag of the repositories whose path has the word, in whatever case. What is left out is told.

    SourceError and its kinds: it has no catalogue, shows it not to everybody, or cannot be reached.
    """
    repositories, whole = await _repositories(catalogue, access)
    matching = [one for one in repositories if word.lower() in one.lower() and catalogue.name(one, "latest")]
    lists = await asyncio.gather(*(_tags(one, catalogue, access) for one in matching[:MOST_FOUND]))
    names = (catalogue.name(repository, tag) for repository, tags in zip(matching, lists, strict=False) for tag in tags)
    host, left_out = catalogue.endpoint.host, []
    if len(matching) > MOST_FOUND:
        what = f"{len(matching) - MOST_FOUND} more repositories have the word: a longer one finds them"
        left_out.append(Unlisted(host, what))
    if not whole:
        left_out.append(Unlisted(host, f"only its first {len(repositories)} repositories were looked at"))
    return Searched(tuple(Found(name=name.short, source=host) for name in names if name is not None), tuple(left_out))


async def _repositories(catalogue: Catalogue, access: Access) -> tuple[list[str], bool]:
    """And whether these are all."""
    found: list[str] = []
    for _ in range(_MOST_PAGES):
        url = catalogue.page(_PAGE, found[-1] if found else "")
        shape, more = await access.net.patiently(partial(_ask, url=url, access=access), reached=False)
        page = _texts(shape, "repositories")
        found += page
        if not more or not page:
            return found, True
    return found, False


async def _tags(repository: str, catalogue: Catalogue, access: Access) -> list[str]:
    own = access.at(catalogue.at(repository))
    shape, _ = await access.net.patiently(partial(_ask, url=own.endpoint.tags(), access=own), reached=False)
    return _texts(shape, "tags")


async def _ask(url: URL, access: Access) -> tuple[JsonObject, bool]:
    """An object, and whether there is more of it."""
    async with access.open("GET", url) as response:
        if response.status != 200:
            raise await access.net.refusal(response, "searching its catalogue")
        data = await access.net.read(response, _MAX_BYTES, "the catalogue")
        more = 'rel="next"' in response.headers.get("Link", "")
    try:
        shape = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"the catalogue of {access.endpoint.host} is not JSON: {error}") from error
    if not isinstance(shape, dict):
        raise SourceError(f"the catalogue of {access.endpoint.host} is not an object")
    return shape, more


def _texts(shape: JsonObject, key: str) -> list[str]:
    value = shape.get(key)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
