"""Lists in pages, as all of OpenAI's lists of objects are asked for and answered."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from starlette.requests import Request

from puna.errors import InvalidRequest, NotFound
from puna.server.contract.reading import read_parameters
from puna.state.records import Page, Query, Record
from puna.types import JsonObject, JsonValue

_INTEGER = re.compile(r"-?[0-9]+")
_PAGING = ("limit", "order", "after", "before")


def read_query(request: Request, *, default: int = 20, most: int = 100, others: Collection[str] = ()) -> Query:
    """`limit` (1 to `most`), `order` (`asc`, `desc`: newest first), `after` and `before` (ids) of the URL, checked.

    `others`: what else this URL may say, and its route reads. All other parameters are reported.
    """
    said = read_parameters(request, (*_PAGING, *others))
    query = Query(limit=_limit(said.get("limit"), default, most), newest_first=_newest_first(said.get("order")))
    return replace(query, after=said.get("after") or None, before=said.get("before") or None)


def page_json(page: Page, show: Callable[[Record], JsonObject]) -> JsonObject:
    """The list object. Every record shown has an `id`."""
    data: list[JsonValue] = [show(record) for record in page.records]
    ids = [record.id for record in page.records]
    return {
        "object": "list",
        "data": data,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": page.more,
    }


def items_json(items: Sequence[JsonObject], query: Query) -> JsonObject:
    """The list object of things that are no records of their own, given oldest first. NotFound as State's."""
    ordered = list(reversed(items)) if query.newest_first else list(items)
    places = {item["id"]: place for place, item in enumerate(ordered)}
    for param, id_ in (("after", query.after), ("before", query.before)):
        if id_ is not None and id_ not in places:
            raise NotFound(f"'{param}': there is no '{id_[:200]}' in this list.", param=param)
    first = 0 if query.after is None else places[query.after] + 1
    last = len(ordered) if query.before is None else places[query.before]
    limit = len(ordered) if query.limit is None else query.limit
    # The page before an item is the last one before it.
    if query.before is not None and query.after is None:
        shown, more = ordered[max(first, last - limit) : last], last - limit > first
    else:
        shown, more = ordered[first:last][:limit], last - first > limit
    return {
        "object": "list",
        "data": list(shown),
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": more,
    }


def _limit(text: str | None, default: int, most: int) -> int:
    if text is None:
        return default
    if not _INTEGER.fullmatch(text):
        raise InvalidRequest(
            f"Invalid type for 'limit': expected an integer, but got '{text[:100]}' instead.",
            param="limit",
            code="invalid_type",
        )
    # One of more digits is over every limit.
    limit = int(text[:20])
    if not 1 <= limit <= most:
        raise InvalidRequest(
            f"Invalid 'limit': expected a value from 1 to {most}, but got {text[:30]} instead.",
            param="limit",
            code="integer_below_min_value" if limit < 1 else "integer_above_max_value",
        )
    return limit


def _newest_first(text: str | None) -> bool:
    if text in (None, "desc", "asc"):
        return text != "asc"
    raise InvalidRequest(
        f"Invalid value: '{text[:100]}'. Supported values are: 'asc' and 'desc'.", param="order", code="invalid_value"
    )
