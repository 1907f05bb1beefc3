"""The images and files of a request that are somewhere else: fetched before it is converted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module

from puna.errors import InvalidRequest, Unsupported
from puna.model.capabilities import Capability
from puna.model.reference import Reference
from puna.server.kept_files import KeptText
from puna.server.services import Services

_FETCHES = 4
"""Remote images of one request that are fetched at once."""

_FETCHED = 100 * 1024 * 1024
"""Bytes of a request's remote images after which no other is fetched."""


async def remote_media(services: Services, model: str, remote: Sequence[tuple[str, str]]) -> dict[str, bytes]:
    """Images by their URL. `remote`: paths and URLs. A model that sees nothing lets nothing be fetched."""
    if not remote:
        return {}
    found = await asyncio.to_thread(services.library.resolve, Reference.parse(model))
    if Capability.VISION not in found.capabilities:
        part = remote[0][0].partition(".image_url")[0]
        raise Unsupported(f'"{model}" does not support images: it has no vision projector', param=part)
    wanted = {url: param for param, url in remote}
    # Its HTTP client takes a while to load.
    await asyncio.to_thread(import_module, "puna.server.openai.fetch")
    from puna.server.openai.fetch import fetch_image

    slots = asyncio.Semaphore(_FETCHES)
    sizes: list[int] = []

    async def fetch(url: str, param: str) -> bytes:
        async with slots:
            if sum(sizes) > _FETCHED:
                raise InvalidRequest(
                    f"Invalid '{param}': the images have more than {_FETCHED} bytes together.",
                    param=param,
                    code="image_too_large",
                )
            data = await fetch_image(url, param, private=services.settings.fetch_private)
            sizes.append(len(data))
            return data

    fetched = await asyncio.gather(*(fetch(url, param) for url, param in wanted.items()))
    return dict(zip(wanted, fetched, strict=True))


async def remote_text(services: Services, url: str, param: str) -> KeptText:
    """What a model reads of a file that is somewhere else."""
    await asyncio.to_thread(import_module, "puna.server.openai.fetch")
    from puna.server.openai.fetch import fetch_text

    return await fetch_text(url, param, private=services.settings.fetch_private)
