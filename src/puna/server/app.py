"""The whole server in one visible place: every route, and what each request passes before it."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from puna.errors import InvalidRequest, MethodNotAllowed, NotFound, PunaError
from puna.server.callers import Callers
from puna.server.ending import Ends
from puna.server.errors import error_response
from puna.server.home import Home
from puna.server.keys import Keys
from puna.server.middleware import BodyLimit, Hosts, Identify, Origins
from puna.server.ollama.routes import routes as ollama_routes
from puna.server.openai import absent
from puna.server.openai.routes import routes as openai_routes
from puna.server.responses.conversations import conversation_routes
from puna.server.responses.routes import response_routes
from puna.server.services import Services
from puna.server.state import routes as state_routes


def create_app(services: Services) -> Starlette:
    settings = services.settings
    return _App(
        routes=[
            Route("/", Home(services).root, methods=["GET"]),
            *state_routes(services),
            *services.thoughts.routes(),
            *openai_routes(services),
            *response_routes(services),
            *conversation_routes(services),
            *ollama_routes(services),
        ],
        middleware=[
            Middleware(Identify, services.metrics),
            Middleware(Ends, services.ending),
            Middleware(Origins, settings.origins),
            Middleware(Hosts, settings.address.host),
            Middleware(Keys, settings.api_keys),
            Middleware(Callers, services.scheduler.waiter),
            Middleware(BodyLimit, settings.max_body, settings.max_bodies),
        ],
        exception_handlers={HTTPException: _unroutable},
    )


class _App(Starlette):
    """Without Starlette's outermost layer, whose work is Identify's: every token would pass it."""

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = ExceptionMiddleware(self.router, handlers=self.exception_handlers)
        for middleware in reversed(self.user_middleware):
            app = middleware.cls(app, *middleware.args, **middleware.kwargs)
        return app


async def _unroutable(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such path, not this verb) in the dialect of the path."""
    assert isinstance(error, HTTPException)
    response = error_response(_refusal(request, error), request.url.path)
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
