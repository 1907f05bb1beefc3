"""The images and files of a request that are somewhere else: fetched before it is converted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TypeVar

from puna.errors import Code, InvalidRequest, Unsupported
from puna.model.capabilities import Capability
from puna.model.reference import Reference
from puna.server.kept_files import KeptText
from puna.server.services import Services

_FETCHES = 4
"""Remote images or files of one request that are fetched at once."""

_FETCHED = 100 * 1024 * 1024
"""Bytes of a request's remote images, or of the texts of its remote files, after which no other is fetched."""

Fetched = TypeVar("Fetched")


async def remote_media(services: Services, model: str, remote: Sequence[tuple[str, str]]) -> dict[str, bytes]:
    """Images by their URL. `remote`: paths and URLs. A model that sees nothing lets nothing be fetched."""
    if not remote:
        return {}
    found = await asyncio.to_thread(services.library.resolve, Reference.parse(model))
    if Capability.VISION not in found.capabilities:
        part = remote[0][0].partition(".image_url")[0]
        raise Unsupported(f'"{model}" does not support images: it has no vision projector', param=part)
    # Its HTTP client takes a while to load.
    await asyncio.to_thread(import_module, "puna.server.openai.fetch")
    from puna.server.openai.fetch import fetch_image

    fetch = partial(fetch_image, private=services.settings.fetch_private)
    return await _all(remote, fetch, len, "images", "image_too_large")


async def remote_texts(services: Services, remote: Sequence[tuple[str, str]]) -> dict[str, KeptText]:
    """What a model reads of files that are somewhere else, by their URL."""
    if not remote:
        return {}
    await asyncio.to_thread(import_module, "puna.server.openai.fetch")
    from puna.server.openai.fetch import fetch_text

    fetch = partial(fetch_text, private=services.settings.fetch_private)
    return await _all(remote, fetch, lambda file: len(file.text), "files", "invalid_value")


async def _all(
    remote: Sequence[tuple[str, str]],
    fetch: Callable[[str, str], Awaitable[Fetched]],
    size: Callable[[Fetched], int],
    what: str,
    code: Code,
) -> dict[str, Fetched]:
    """Each once, a few at a time; none after there is too much of them together."""
    slots = asyncio.Semaphore(_FETCHES)
    sizes: list[int] = []

    async def one(url: str, param: str) -> Fetched:
        async with slots:
            if sum(sizes) > _FETCHED:
                raise InvalidRequest(
                    f"Invalid '{param}': the {what} have more than {_FETCHED} bytes together.", param=param, code=code
                )
            found = await fetch(url, param)
            sizes.append(size(found))
            return found

    wanted = {url: param for param, url in remote}
    fetched = await asyncio.gather(*(one(url, param) for url, param in wanted.items()))
    return dict(zip(wanted, fetched, strict=True))
