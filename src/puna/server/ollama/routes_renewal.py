"""What there is elsewhere, under `/api`: newer ones of the models that are here, and others. Ours, not Ollama's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from puna.errors import InvalidRequest
from puna.model.digest import Digest
from puna.model.name import Name
from puna.model.reference import Reference
from puna.server.body import JsonReply
from puna.server.ollama.bodies import OfferBody, OutdatedBody, SearchBody
from puna.server.ollama.exchange import is_local, read_body, required
from puna.server.services import Services
from puna.sources.freshness import Freshness
from puna.sources.source import Terms
from puna.sources.sources import StoredModel
from puna.types import JsonObject, JsonValue


class RenewalRoutes:
    def __init__(self, services: Services) -> None:
        self._library = services.library
        self._sources = services.sources
        self._strict = services.settings.strict

    async def outdated(self, request: Request) -> Response:
        """Each model's source is asked what it has now; what cannot be told says why."""
        body, _ = await read_body(request, OutdatedBody, strict=self._strict)
        stored = await asyncio.to_thread(self._stored, [Reference.parse(text) for text in body.models])
        terms = Terms(insecure=body.insecure, local=is_local(request))
        return JsonReply({"models": [_told(one) for one in await self._sources.freshness(stored, terms)]})

    def _stored(self, wanted: Sequence[Reference]) -> list[StoredModel]:
        if wanted:
            models = (self._library.resolve(one) for one in wanted)
            return [StoredModel(model.name, Digest(model.digest)) for model in models]
        return [StoredModel(model.name, Digest(model.label.digest)) for model in self._library.listed()]

    async def offer(self, request: Request) -> Response:
        """What a pull would bring now. Nothing is fetched, and it is the same whether the model is here or not."""
        body, _ = await read_body(request, OfferBody, strict=self._strict)
        wanted = Reference.parse(required(body.target))
        literal = Name.writes_host(body.target)
        terms = Terms(insecure=body.insecure, literal=literal, local=is_local(request), manifest=wanted.digest)
        offer = await self._sources.offer(wanted.name, terms)
        return JsonReply(
            {
                "name": wanted.name.short,
                "source": offer.source,
                "manifest": None if offer.manifest is None else str(offer.manifest),
                "revision": offer.revision,
                "size": offer.size,
            }
        )

    async def search(self, request: Request) -> Response:
        """The models that are here, what sources list, and which of them cannot be searched."""
        body, _ = await read_body(request, SearchBody, strict=self._strict)
        word = body.word.strip()
        if not word:
            raise InvalidRequest("a word to look for is required", param="word", code="missing_required_parameter")
        here: list[JsonValue] = [
            {"name": model.name.short, "source": "here", "description": "", "size": model.label.size}
            for model in await asyncio.to_thread(self._library.listed)
            if word.lower() in model.name.full.lower()
        ]
        searched = await self._sources.search(word, Terms(insecure=body.insecure, local=is_local(request)))
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
