"""The server's life: logging, address, parts, uvicorn, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import structlog
import uvicorn

from puna import __version__
from puna.engine.runner import Engine
from puna.errors import PunaError, StoreError
from puna.inference import Inference
from puna.scheduler.scheduler import Scheduler
from puna.server.app import create_app
from puna.server.engines import engines, stand_in_for
from puna.server.middleware import is_loopback, parse_origins
from puna.server.protocol import Limits, Protocol
from puna.server.services import Services
from puna.settings import Address, SettingError, Settings
from puna.sources import catalogue
from puna.store.library import Library, StandIn

DRAIN_SECONDS = 5
"""How long requests under way may go on after a signal to stop; a second signal ends them at once."""

IDLE_SECONDS = 75
"""How long a connection without a request is kept. Longer than clients keep theirs, so that it is they who close."""

_log = structlog.stdlib.get_logger(__name__)


def run(settings: Settings) -> int:
    """Serve until told to stop. Returns the exit code: 0 after an orderly end, 1 when it could not begin."""
    configure_logging(debug=settings.debug)
    try:
        parse_origins(settings.origins)
        with listening(settings.address) as listener:
            _run_loop(_serve(settings, listener))
    except PunaError as error:
        _log.error(str(error))
        return 1
    return 0


def configure_logging(*, debug: bool) -> None:
    """Logs go to stderr, one event a line."""
    level = logging.DEBUG if debug else logging.INFO
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")


# --------------------------------------------------------------------------------------------------------- address


@contextlib.contextmanager
def listening(address: Address) -> Iterator[socket.socket]:
    """A socket that listens on `address`. SettingError says why it cannot."""
    if address.scheme == "https" or address.path:
        raise SettingError("PUNA_HOST", _url(address), "an address to listen on; this server speaks plain HTTP, at '/'")
    try:
        listener = _listen(address)
    except OSError as error:
        raise SettingError("PUNA_HOST", f"{address.host}:{address.port}", _expected(error)) from error
    with listener:
        yield listener


def _listen(address: Address) -> socket.socket:
    if not address.host:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(("", address.port), family=family, dualstack_ipv6=both, backlog=2048)
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = found[0]
    return socket.create_server((str(where[0]), int(where[1])), family=family, backlog=2048)


def _expected(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "an address that is free: something else listens there already, perhaps another puna or ollama"
    return f"an address of this machine: {error.strerror or error}"


def _url(address: Address) -> str:
    return Address(address.host, address.port, address.scheme, address.path).url


def bound(listener: socket.socket, address: Address) -> Address:
    """The address that clients call; the port is the real one when 0 was asked for."""
    return Address(address.host, int(listener.getsockname()[1]))


# ------------------------------------------------------------------------------------------------------------ parts


@asynccontextmanager
async def parts(
    settings: Settings, found: Mapping[str, Engine], stand_in: StandIn = catalogue.stand_in
) -> AsyncIterator[Services]:
    """Everything that the routes need. Leaving it ends every runner."""
    library = Library.open(
        settings.models,
        read_only=settings.read_only_models,
        no_prune=settings.no_prune,
        stand_in=stand_in,
    )
    await _prune(library)
    async with Scheduler(found, settings, verify=library.verify) as scheduler:
        yield Services(settings, library, scheduler, Inference(library, scheduler, settings))


async def _prune(library: Library) -> None:
    """Remove what earlier runs left over. A store that cannot be tidied serves all the same, and the log says so."""
    try:
        removed = await asyncio.to_thread(library.prune)
    except StoreError as error:
        _log.warning("store not pruned", reason=str(error))
    else:
        if removed:
            _log.info("removed unused files of the store", count=len(removed))


class Server(uvicorn.Server):
    """uvicorn without its signal handlers, which raise the signal again at the end, before runners are closed."""

    def __init__(self, services: Services, *, on_ready: Callable[[], None]) -> None:
        limits = Limits(services.settings.max_connections, services.settings.read_timeout)
        super().__init__(
            uvicorn.Config(
                create_app(services),
                http=cast("type[asyncio.Protocol]", partial(Protocol, limits=limits)),
                ws="none",
                access_log=False,
                log_config=None,
                lifespan="off",
                server_header=False,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
        )
        self._on_ready = on_ready
        self._asked_to_stop = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """End in an orderly way; at once when asked a second time."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._asked_to_stop.set()

    async def main_loop(self) -> None:
        """Once a second, for the date in answers. uvicorn looks ten times, and takes the processor from engines."""
        while not await self.on_tick(0):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._asked_to_stop.wait(), 1)


async def _serve(settings: Settings, listener: socket.socket) -> None:
    found = engines(settings)
    async with parts(settings, found, stand_in_for(found)) as services:
        server = Server(services, on_ready=lambda: _announce(settings, listener))
        with _signals(server.stop):
            await server.serve(sockets=[listener])
        _log.info("stopped")


def _announce(settings: Settings, listener: socket.socket) -> None:
    address = bound(listener, settings.address)
    _log.info(f"puna {__version__} listens on {address.url}", models=str(settings.models), engine=settings.engine)
    if not is_loopback(settings.address.host) and not settings.api_keys:
        _log.warning("whoever reaches this address can use the server: set PUNA_API_KEYS, or listen on 127.0.0.1")


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    wanted = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in wanted:
            loop.add_signal_handler(number, stop)
    except NotImplementedError:  # Windows: no loop there handles signals
        before = [signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop)) for number in wanted]
        try:
            yield
        finally:
            for number, handler in zip(wanted, before, strict=True):
                signal.signal(number, handler)
        return
    try:
        yield
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)


def _run_loop(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:  # Windows
        asyncio.run(main)
    else:
        uvloop.run(main)
