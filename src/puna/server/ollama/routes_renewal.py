"""What there is elsewhere, under `/api`: newer ones of the models that are here, and others. Ours, not Ollama's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from puna.model.digest import Digest
from puna.model.model import Model
from puna.model.name import Name
from puna.model.reference import Reference
from puna.server.body import JsonReply
from puna.server.ollama.bodies import OutdatedBody, SearchBody
from puna.server.ollama.exchange import is_local, read_body, required
from puna.server.services import Services
from puna.sources.freshness import Freshness
from puna.sources.source import Terms
from puna.types import JsonObject, JsonValue

AT_ONCE = 4
"""Sources that are asked at a time."""


class RenewalRoutes:
    def __init__(self, services: Services) -> None:
        self._library = services.library
        self._sources = services.sources
        self._strict = services.settings.strict

    async def outdated(self, request: Request) -> Response:
        """Each model's source is asked what it has now; what cannot be told says why."""
        body, _ = await read_body(request, OutdatedBody, strict=self._strict)
        models = await asyncio.to_thread(self._stored, [Reference.parse(text) for text in body.models])
        bound = asyncio.Semaphore(AT_ONCE)
        usual = Terms(insecure=body.insecure, local=is_local(request))

        async def ask(model: Model) -> Freshness:
            async with bound:
                terms = replace(usual, literal=Name.writes_host(model.name.short))
                return await self._sources.freshness(model.name, Digest(model.digest), terms)

        return JsonReply({"models": [_told(one) for one in await asyncio.gather(*(ask(one) for one in models))]})

    def _stored(self, wanted: Sequence[Reference]) -> list[Model]:
        return [self._library.resolve(one) for one in wanted] if wanted else self._library.models()

    async def search(self, request: Request) -> Response:
        """The models that are here, what sources list, and which of them cannot be searched."""
        body, _ = await read_body(request, SearchBody, strict=self._strict)
        word = required(body.word)
        here: list[JsonValue] = [
            {"name": model.name.short, "source": "here", "description": "", "size": model.size}
            for model in await asyncio.to_thread(self._library.models)
            if word.lower() in model.name.full.lower()
        ]
        searched = await self._sources.search(word)
        there: list[JsonValue] = [
            {"name": one.name, "source": one.source, "description": one.description, "size": one.size}
            for one in searched.found
        ]
        unlisted: list[JsonValue] = [{"source": one.source, "reason": one.reason} for one in searched.unlisted]
        return JsonReply({"models": [*here, *there], "unlisted": unlisted})


def _told(one: Freshness) -> JsonObject:
    return {
        "name": one.name.short,
        "state": one.state,
        "digest": one.stored.hex,
        "source": one.source,
        "offered": one.offered,
        "reason": one.reason,
    }
