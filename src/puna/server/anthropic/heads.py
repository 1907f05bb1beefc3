"""What the heads of requests ask for beside their bodies: a version of the API, and betas of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from starlette.datastructures import Headers

from puna.server.contract.converted import Converted, Request_co
from puna.server.contract.shapes import Shape

VERSION_HEADER, _BETAS_HEADER = "anthropic-version", "anthropic-beta"

_FIRST, _SECOND = "2023-06-01", "2026-10-21"
"""The versions of the API that are spoken. The second takes no numbers of sampling, no documents in an assistant's
turn, and no citations in a user's; answers are the same."""

_SAMPLING = ("temperature", "top_p", "top_k")

_HERE = (
    "effort-", "extended-cache-ttl-", "files-api-", "fine-grained-tool-streaming-", "interleaved-thinking-",
    "max-tokens-", "message-batches-", "output-128k-", "pdfs-", "prompt-caching-", "search-results-",
    "structured-outputs-", "token-counting-",
)  # fmt: skip
"""How the names of betas begin, before their dates, of which all is here anyway, or is a field with its own mark."""


def without_effect(headers: Headers) -> Iterator[str]:
    """The paths of what is asked in vain: a version that is not spoken, each beta that does nothing here."""
    if headers.get(VERSION_HEADER, _FIRST) not in {_FIRST, _SECOND}:
        yield VERSION_HEADER
    for value in headers.getlist(_BETAS_HEADER):
        for beta in filter(None, map(str.strip, value.split(","))):
            if not beta.startswith(_HERE):
                yield f"{_BETAS_HEADER}.{beta}"


def of_its_version(headers: Headers, body: Shape, converted: Converted[Request_co]) -> Converted[Request_co]:
    """The same, and what the version that is asked for has no more, and is honoured all the same, told as such."""
    if headers.get(VERSION_HEADER) != _SECOND:
        return converted
    gone = tuple(name for name in _SAMPLING if getattr(body, name, None) is not None)
    return replace(converted, nonstandard=(*gone, *converted.nonstandard))
