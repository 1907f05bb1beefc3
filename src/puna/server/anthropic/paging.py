"""Pages as Anthropic's clients ask for them."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import QueryParams
from starlette.requests import Request

from puna.errors import InvalidRequest
from puna.server.contract.reading import read_parameters
from puna.state.records import Query

_PAGE = 20
_MOST = 1000
_PAGING = ("limit", "after_id", "before_id")


def read_page(request: Request, others: Sequence[str] = (), lists: Sequence[str] = ()) -> Query:
    """`limit`, and either `after_id` or `before_id`, checked, each once. Whatever else the URL says is reported, but
    for `others`, and for `lists`, which may be there several times."""
    said = read_parameters(request, (*_PAGING, *others), lists)
    after, before = said.get("after_id"), said.get("before_id")
    if after is not None and before is not None:
        raise InvalidRequest("Only one of 'after_id' and 'before_id' can be given.", param="before_id")
    return Query(limit=_limit(said), after=after, before=before)


def _limit(said: QueryParams) -> int:
    text = said.get("limit")
    if text is None:
        return _PAGE
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= _MOST):
        raise InvalidRequest(f"Invalid 'limit': expected a number from 1 to {_MOST}.", param="limit")
    return int(text)
