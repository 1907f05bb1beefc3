"""Fields without effect, in every dialect: whether they are refused or reported, and how an answer names them."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from starlette.requests import Request

from puna.errors import InvalidRequest

STRICT = "x-puna-strict"
"""Request header, `true` or `false`: refuse unknown fields, or report them, whatever the settings say."""

IGNORED = "x-puna-ignored"
"""Header of answers: the paths of fields without effect."""

_MOST = 100
"""Names in the header, at most; the rest is counted."""


def refuses_unknown(request: Request, setting: bool) -> bool:
    """The request's header wins over the setting."""
    header = request.headers.get(STRICT)
    match header and header.lower():
        case None:
            return setting
        case "true" | "1":
            return True
        case "false" | "0":
            return False
        case _:
            raise InvalidRequest(f"Invalid header '{STRICT}': expected true or false.", param=STRICT)


def field_list(paths: Sequence[str]) -> str:
    """Paths as a header's value, each once. They come from the client: what a header cannot hold is percent-encoded."""
    known = list(dict.fromkeys(paths))
    shown = [quote(path, safe="[]$@!#&'*+/")[:200] for path in known[:_MOST]]
    more = len(known) - _MOST
    return ", ".join([*shown, f"and {more} more"] if more > 0 else shown)
