"""How the server is: `/health`, `/ready`, `/metrics`. None of them waits for a model."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from puna.server.body import JsonReply
from puna.server.log import LogStream
from puna.server.metrics import CONTENT_TYPE
from puna.server.services import Services
from puna.types import JsonValue


def routes(services: Services) -> list[Route]:
    state = _State(services)
    return [
        Route("/health", state.health, methods=["GET"]),
        Route("/ready", state.ready, methods=["GET"]),
        Route("/metrics", state.metrics, methods=["GET"]),
    ]


class _State:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def health(self, _request: Request) -> Response:
        """It answers, and no load of it is stuck: what a restart would mend."""
        return self._told(self._services.scheduler.stuck())

    async def ready(self, _request: Request) -> Response:
        """Whether requests should come here."""
        ending = ["the server ends"] if self._services.ending.now else []
        scheduler = self._services.scheduler
        return self._told([*ending, *scheduler.stuck(), *scheduler.resting()])

    def _told(self, troubles: Sequence[str]) -> Response:
        """503 with them, if there are any. They name models: where there are keys, they stay inside."""
        if not troubles:
            return JsonReply({"status": "ok"})
        told: list[JsonValue] = [] if self._services.settings.api_keys else [*troubles]
        return JsonReply({"status": "unavailable", "troubles": told}, status=503, headers={"retry-after": "5"})

    async def metrics(self, _request: Request) -> Response:
        page = self._services.metrics.page(self._services.scheduler, lost=LogStream.lost_by_all)
        return Response(page, media_type=None, headers={"content-type": CONTENT_TYPE, "cache-control": "no-store"})
