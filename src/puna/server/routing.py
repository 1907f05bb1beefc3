"""Paths and their handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from puna.server.streaming import EventStream

RequestHandler: TypeAlias = Callable[[Request], Awaitable["Response | EventStream | ASGIApp"]]


def dialect_route(path: str, handlers: Mapping[str, RequestHandler]) -> Route:
    """One path with a handler for each method; HEAD is GET's."""

    async def endpoint(request: Request) -> Response | EventStream | ASGIApp:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, endpoint, methods=[*handlers])
