"""What is here and what is loaded, under `/api`: version, status, tags, ps, show, copy, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

import puna
from puna.errors import InvalidName, InvalidRequest, ModelFileError, Unsupported
from puna.inference.sampling import cut_context
from puna.model.capabilities import Capability
from puna.model.listed import Label
from puna.model.model import Model
from puna.model.name import Name
from puna.model.reference import Reference
from puna.server.body import JsonReply, reply_beside
from puna.server.contract.options import read_options
from puna.server.contract.reading import read_parameters
from puna.server.ollama import listing
from puna.server.ollama.bodies import CopyBody, DeleteBody, EstimateBody, ShowBody, UnloadBody
from puna.server.ollama.exchange import missing_as, read_body, required
from puna.server.services import Services
from puna.types import JsonObject, JsonValue

OLLAMA_API = "0.33.0"
"""The release of Ollama whose API this is. Clients compare it with the least they need; `puna` stands beside it."""


_Parsed = TypeVar("_Parsed", Name, Reference)


class ModelRoutes:
    def __init__(self, services: Services) -> None:
        self._library = services.library
        self._scheduler = services.scheduler
        self._inference = services.inference
        self._strict = services.settings.strict

    async def version(self, request: Request) -> Response:
        read_parameters(request, ())
        return JsonReply({"version": OLLAMA_API, "puna": puna.__version__})

    async def status(self, request: Request) -> Response:
        """There is no cloud here to be asked."""
        return JsonReply({"cloud": {"disabled": True, "source": "none"}})

    async def tags(self, request: Request) -> Response:
        read_parameters(request, ())
        models = await asyncio.to_thread(self._library.listed)
        return await reply_beside(
            lambda: {"models": [listing.tag(model) for model in models]}, len(models) * listing.TAG_ITEMS
        )

    async def ps(self, request: Request) -> Response:
        """Those that stay longest come first. Requests that wait are told where there are any."""
        read_parameters(request, ())
        now = datetime.now(timezone.utc)
        forever = datetime.max.replace(tzinfo=timezone.utc)
        loaded = sorted(self._scheduler.loaded(), key=lambda item: item.expires_at or forever, reverse=True)
        listed: JsonObject = {"models": [listing.running(item, now) for item in loaded]}
        if waiting := self._scheduler.waiters():
            listed["queue"] = [listing.waiting(waiter) for waiter in waiting]
        return JsonReply(listed)

    async def show(self, request: Request) -> Response:
        body, _ = await read_body(request, ShowBody, strict=self._strict)
        wanted = Reference.parse(required(body.target))
        with missing_as(f"model '{wanted.short}' not found"):
            model = await asyncio.to_thread(self._library.resolve, wanted)
        header, projectors = await asyncio.to_thread(self._library.headers, model, arrays=body.verbose)
        here = await self._here(model)
        return await reply_beside(
            lambda: listing.card(model, here, header=header, projectors=projectors), listing.card_items(model, header)
        )

    async def unload(self, request: Request) -> Response:
        """Tells which models were loaded, and are not any more, or leave when their requests are done."""
        body, _ = await read_body(request, UnloadBody, strict=self._strict)
        if body.everything and body.target:
            raise InvalidRequest("'all' and 'model' exclude each other", param="all")
        if body.everything:
            names = [loaded.model.name for loaded in self._scheduler.loaded()]
        else:
            reference = Reference.parse(required(body.target))
            with missing_as(f"model '{reference.short}' not found"):
                names = [(await asyncio.to_thread(self._library.resolve, reference)).name]
        gone: list[JsonValue] = [name.short for name in names if await self._scheduler.unload(name)]
        return JsonReply({"unloaded": gone})

    async def estimate(self, request: Request) -> Response:
        """What the model would take of memory. Loads nothing."""
        body, report = await read_body(request, EstimateBody, strict=self._strict)
        options, ignored = read_options(body.options, loading=True)
        report.ignore(ignored)
        reference = Reference.parse(required(body.target))
        with missing_as(f"model '{reference.short}' not found"):
            model = await asyncio.to_thread(self._library.resolve, reference)
        embedding = Capability.COMPLETION not in model.capabilities
        reckoned = self._scheduler.reckon(model, options.over(model.options), embedding=embedding)
        cut, cut_parameters = cut_context(options, model, reckoned.num_ctx)
        report.estimated([f"options.{name}" for name in cut], (*model.ignored_parameters, *cut_parameters))
        return JsonReply(listing.estimate(model, reckoned))

    async def _here(self, model: Model) -> listing.Here:
        engine, reason = self._engine(model)
        try:
            syntax = await self._inference.tool_syntax(model)
        except ModelFileError:
            # A template that cannot be read is shown like any other; chats with it are refused.
            syntax = None
        pulled = await asyncio.to_thread(self._library.pulls.of, model.name)
        source = pulled.source if pulled is not None and pulled.manifest.hex == model.digest else ""
        return listing.Here(engine, reason, self._scheduler.context_now(model.name, Label.of(model)), syntax, source)

    def _engine(self, model: Model) -> tuple[str, str]:
        """Which engine runs it, or would, and why; '' and the reason if none can."""
        embedding = Capability.COMPLETION not in model.capabilities
        try:
            choice = self._scheduler.choice(model, model.options, embedding=embedding)
        except Unsupported as error:
            return "", error.message
        return choice.engine, choice.reason

    async def copy(self, request: Request) -> Response:
        body, _ = await read_body(request, CopyBody, strict=self._strict)
        source = _named(lambda: Reference.parse(body.source, param="source"), body.source, "source")
        destination = _named(lambda: Name.parse(body.destination, param="destination"), body.destination, "destination")
        with missing_as(f'model "{body.source}" not found'):
            await asyncio.to_thread(self._library.copy, source, destination)
        return Response()

    async def delete(self, request: Request) -> Response:
        """Removes the model, and unloads it when nobody uses it any more."""
        body, _ = await read_body(request, DeleteBody, strict=self._strict)
        target = required(body.target)
        try:
            wanted = Reference.parse(target)
        except InvalidName as error:
            raise InvalidRequest(f'name "{target}" is invalid', param="model", code="invalid_model_name") from error
        with missing_as(f"model '{target}' not found"):
            await asyncio.to_thread(self._library.expect, wanted)
            await self._scheduler.unload(wanted.name)
            await asyncio.to_thread(self._library.delete, wanted)
        return Response()


def _named(parse: Callable[[], _Parsed], text: str, field: str) -> _Parsed:
    try:
        return parse()
    except InvalidName as error:
        raise InvalidRequest(f'{field} "{text}" is invalid', param=field, code="invalid_model_name") from error
