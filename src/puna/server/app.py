"""The whole server in one visible place: every route, and what each request passes before it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from puna.errors import InvalidRequest, MethodNotAllowed, NotFound, PunaError
from puna.server.anthropic.routes import routes as anthropic_routes
from puna.server.batch.work import BatchWork
from puna.server.callers import Callers
from puna.server.ending import Ends
from puna.server.errors import error_response
from puna.server.files.routes import routes as files_routes
from puna.server.gate import Gate
from puna.server.home import Home
from puna.server.inside import InsideAnswer, ask_inside
from puna.server.keys import Keys
from puna.server.middleware import BodyLimit, Hosts, Identify, Origins
from puna.server.ollama.routes import routes as ollama_routes
from puna.server.openai import absent
from puna.server.openai.routes import routes as openai_routes
from puna.server.responses.background import BackgroundResponses
from puna.server.responses.conversations import conversation_routes
from puna.server.responses.holds import Holds, ServerClaim
from puna.server.responses.renewal import Left
from puna.server.responses.routes import response_routes
from puna.server.services import Services
from puna.server.state import routes as state_routes


def create_app(services: Services) -> PunaApp:
    settings = services.settings
    own = (Middleware(Identify, services.metrics), Middleware(Ends, services.ending))
    callers = Middleware(Callers, services.scheduler.waiter)
    bodies = Middleware(BodyLimit, settings.max_body, settings.max_bodies)

    async def ask(path: str, body: bytes, owner: str, headers: Mapping[str, str]) -> InsideAnswer:
        return await ask_inside(app.inside, path, body, owner, headers)

    work = BatchWork(services.state, ask, lambda: _slots(services), max_line=settings.max_body)
    claim = ServerClaim(services.state)
    holds = Holds(services.state, claim)

    async def ask_again(body: bytes, owner: str, headers: Mapping[str, str], left: Left) -> InsideAnswer:
        return await ask_inside(app.inside, "/v1/responses", body, owner, headers, {"left": left})

    background = BackgroundResponses(services.state, services.ending, claim, ask_again)
    app = PunaApp(
        work,
        background,
        (*own, callers, bodies),
        routes=[
            Route("/", Home(services).root, methods=["GET"]),
            *state_routes(services),
            *services.thoughts.routes(),
            *anthropic_routes(services, work),
            *openai_routes(services),
            *response_routes(services, holds, background),
            *conversation_routes(services, holds),
            *files_routes(services, work),
            *ollama_routes(services),
        ],
        middleware=[
            *own,
            Middleware(Origins, settings.origins),
            Middleware(Hosts, settings.address.host),
            Middleware(Keys, settings.api_keys),
            callers,
            bodies,
            Middleware(Gate),
        ],
        exception_handlers={HTTPException: _unroutable},
    )
    return app


class PunaApp(Starlette):
    """Without Starlette's outermost layer, whose work is Identify's: every token would pass it.

    `work`, `background`: what goes on between requests. `inside`: the same routes for the server's own requests, which
    nobody has to let in.
    """

    def __init__(
        self,
        work: BatchWork,
        background: BackgroundResponses,
        inside: Sequence[Middleware],
        *,
        routes: Sequence[BaseRoute],
        middleware: Sequence[Middleware],
        exception_handlers: Mapping[Any, Callable[[Request, Any], Awaitable[Response]]],
    ) -> None:
        super().__init__(routes=routes, middleware=middleware, exception_handlers=exception_handlers)
        self.work = work
        self.background = background
        self.inside = self._behind(inside)

    def build_middleware_stack(self) -> ASGIApp:
        return self._behind(self.user_middleware)

    def _behind(self, layers: Sequence[Middleware]) -> ASGIApp:
        app: ASGIApp = ExceptionMiddleware(self.router, handlers=self.exception_handlers)
        for middleware in reversed(layers):
            app = middleware.cls(app, *middleware.args, **middleware.kwargs)
        return app


def _slots(services: Services) -> int:
    """How many requests the loaded runners answer at once, at most."""
    return max((loaded.info.slots for loaded in services.scheduler.loaded()), default=0)


async def _unroutable(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such path, not this verb) in the dialect of the path."""
    assert isinstance(error, HTTPException)
    refusal = _refusal(request, error)
    request.state.failed = refusal.code or refusal.type
    response = error_response(refusal, request.url.path, request.headers, request.state.request_id)
    response.headers.update(error.headers or {})
    return response


def _refusal(request: Request, error: HTTPException) -> PunaError:
    what = f"{request.method} {request.url.path}"
    match error.status_code:
        case 404:
            unknown = f"Unknown request URL: {what}. This server does not offer it."
            return absent.refusal(request.method, request.url.path) or NotFound(unknown, code="unknown_url")
        case 405:
            allowed = (error.headers or {}).get("Allow", "")
            return MethodNotAllowed(f"Not allowed: {what}. The methods of this path are {allowed}.")
        case _:
            return InvalidRequest(error.detail)
