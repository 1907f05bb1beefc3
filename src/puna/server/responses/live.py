"""Responses over a WebSocket: each message asks for one, its events come back as messages, and the connection remembers
the last response where the server does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import cast

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from puna.errors import InvalidRequest, PunaError, ServerStopping, Unsupported
from puna.lane import in_lane
from puna.server.allowance import Allowance
from puna.server.body import LARGE, beside, dump_text, kind, parse_json
from puna.server.contract.reading import check, refuses_unknown
from puna.server.contract.report import Report
from puna.server.errors import openai_error
from puna.server.openai.wording import WORDING
from puna.server.responses.bodies import ResponseBody
from puna.server.responses.making import ResponseMaker
from puna.server.responses.past import Recent, items_before, placed_items, with_input
from puna.server.responses.telling import ENDS, ResponseEvent
from puna.server.responses.work import ResponseWork
from puna.server.services import Services
from puna.server.websocket import GOING_AWAY, WebSocket
from puna.types import JsonObject, JsonValue

_CREATE = "response.create"


class LiveResponses:
    """An ASGI response to a request that offers to upgrade."""

    def __init__(self, services: Services, maker: ResponseMaker) -> None:
        self._services = services
        self._maker = maker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._services.settings
        async with WebSocket(scope, receive, send, self._services.ending, most=settings.max_body) as socket:
            session = _Session(self._services, self._maker, scope, socket)
            try:
                async for message in socket.messages():
                    await socket.while_open(session.answer(message))
            except asyncio.CancelledError:
                if self._services.ending.now:
                    await socket.send(dump_text(_fault(ServerStopping(), {})))
                    await socket.close(GOING_AWAY, "the server is stopping")
                raise


class _Session:
    """One connection. Messages are answered one after the other."""

    def __init__(self, services: Services, maker: ResponseMaker, scope: Scope, socket: WebSocket) -> None:
        self._services = services
        self._maker = maker
        self._scope = scope
        self._socket = socket
        self._recent: Recent | None = None
        self._count = 0

    async def answer(self, message: str) -> None:
        """One message. Whatever is wrong with it is told, and the next is served."""
        allowance: Allowance = self._scope["state"]["allowance"]
        marks: JsonObject = {}
        try:
            allowance.meter()(len(message))
            large = len(message) > LARGE
            asked = await in_lane(lambda: _object(message)) if large else _object(message)
            if isinstance(asked.get("stream_id"), str):
                marks["stream_id"] = asked.pop("stream_id")
            await self._respond(asked, message, marks)
        except PunaError as error:
            await self._tell({**_fault(error, marks)})
        finally:
            allowance.give_back()
            allowance.let_go()

    async def _respond(self, asked: JsonObject, message: str, marks: JsonObject) -> None:
        request = self._request(len(message))
        generate = _generate(asked.pop("generate", None))
        body, report = await self._checked(request, asked)
        work = await self._maker.work(request, body, report, self._recent, generate=generate)
        async with aclosing(_all(work)) as events:
            async for told in events:
                # There are no headers here.
                last = told["type"] in ENDS and bool(report.told)
                reported: JsonObject = {"report": cast("JsonObject", report.told)} if last else {}
                await self._tell({**told, **reported, **marks})
        await self._remember(request, body, work)

    async def _checked(self, request: Request, asked: JsonObject) -> tuple[ResponseBody, Report]:
        type_ = asked.pop("type", None)
        if type_ != _CREATE:
            raise Unsupported(
                f"Messages of type '{str(type_)[:100]}' are not understood: send '{_CREATE}'.", param="type"
            )
        if asked.get("background"):
            raise Unsupported("'background' goes with a request of its own, not with a connection.", param="background")
        whole = asked.get("stream") is False
        strict = refuses_unknown(request, self._services.settings.strict)
        # A connection has only events. What is no boolean is refused as it is elsewhere.
        asked = {**asked, "stream": True if whole or asked.get("stream") is None else asked["stream"]}
        body, ignored = await beside(request, lambda: check(ResponseBody, asked, WORDING, strict=strict))
        recent = self._recent
        if recent is not None and body.previous_response_id == recent.id and body.store is not False:
            raise InvalidRequest(
                "The previous response was not stored: one that goes on from it needs 'store' false.", param="store"
            )
        return body, Report(request.state, (*ignored, *(("stream",) if whole else ())))

    def _request(self, size: int) -> Request:
        """The request that one message is: the connection's, with a state of its own."""
        self._count += 1
        state = self._scope["state"]
        own = {
            **state,
            "request_id": f"{state['request_id']}-{self._count}",
            "response_headers": {},
            "responded": False,
            "body_size": size,
        }
        return Request({**self._scope, "state": own})

    async def _remember(self, request: Request, body: ResponseBody, work: ResponseWork) -> None:
        """What is not stored, for the next message."""
        memory, response = work.memory, work.telling.response
        if memory.response or response["status"] == "failed":
            return
        before = await items_before(memory.state, body, memory.owner, self._recent)
        items = await with_input(memory.state, body.input, before, memory.owner)
        output = await placed_items(work.telling.output, "previous_response_id")
        path = "previous_response_id"
        self._recent = Recent(str(response["id"]), tuple(replace(one, path=path) for one in (*items, *output)))

    async def _tell(self, event: ResponseEvent) -> None:
        await self._socket.send(dump_text(event))


async def _all(work: ResponseWork) -> AsyncGenerator[ResponseEvent, None]:
    async with aclosing(work.told()) as events:
        async for told in events:
            if not isinstance(told, bytes):
                yield told


def _generate(said: JsonValue) -> bool:
    if said is None or isinstance(said, bool):
        return said is not False
    message = f"Invalid type for 'generate': expected a boolean, but got {kind(said)} instead."
    raise InvalidRequest(message, param="generate", code="invalid_type")


def _object(message: str) -> JsonObject:
    value = parse_json(message.encode("utf-8", "replace"))
    if not isinstance(value, dict):
        raise InvalidRequest("A message is a JSON object.")
    return value


def _fault(error: PunaError, marks: JsonObject) -> JsonObject:
    return {"type": "error", "status": error.status, **openai_error(error), **marks}
