"""Running answers whose thoughts a further request may end: `POST /v1/requests/{id}/end_thinking`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from puna.errors import Conflict, NotFound
from puna.inference.inference import Inference
from puna.inference.thought import ThoughtWatch
from puna.server.body import JsonReply
from puna.server.owner import owner_of
from puna.types import ChatRequest, Event


class Thoughts:
    """Whom to tell that a thought should end: by whose request it is, and the request's id (its answer's header
    `x-request-id`)."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], ThoughtWatch] = {}

    @asynccontextmanager
    async def chat(
        self, inference: Inference, request: Request, wanted: ChatRequest
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """The answer of `Inference.chat` to `wanted`, which came with `request`; its thoughts may be ended by then."""
        key = owner_of(request), request.state.request_id
        watch = self._running[key] = ThoughtWatch()
        try:
            async with inference.chat(wanted, watch) as events:
                yield events
        finally:
            # A request over a WebSocket may have begun another answer meanwhile.
            if self._running.get(key) is watch:
                del self._running[key]

    def routes(self) -> list[Route]:
        return [Route("/v1/requests/{id}/end_thinking", self._end, methods=["POST"])]

    async def _end(self, request: Request) -> Response:
        id_: str = request.path_params["id"]
        watch = self._running.get((owner_of(request), id_))
        if watch is None:
            raise NotFound(f"No answer is under way to a request '{id_[:100]}'.", param="id")
        if not watch.end():
            raise Conflict(f"The answer to '{id_}' does not think now.", param="id")
        return JsonReply({"id": id_, "object": "request.thinking_ended"})
