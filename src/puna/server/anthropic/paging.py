"""Pages as Anthropic's clients ask for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from starlette.datastructures import QueryParams
from starlette.requests import Request

from puna.errors import InvalidRequest, NotFound
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


@contextmanager
def naming_cursors(after: str | None = None) -> Iterator[None]:
    """An object that a page is asked after or before, and that is not there: NotFound names this dialect's own
    parameter. `after`: the one that stood for it, if it was another."""
    try:
        yield
    except NotFound as error:
        name = {"after": after or "after_id", "before": "before_id"}.get(error.param or "")
        if name is None:
            raise
        raise NotFound(error.message.replace(f"'{error.param}'", f"'{name}'", 1), param=name) from error


def _limit(said: QueryParams) -> int:
    text = said.get("limit")
    if text is None:
        return _PAGE
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= _MOST):
        raise InvalidRequest(f"Invalid 'limit': expected a number from 1 to {_MOST}.", param="limit")
    return int(text)
