"""The server's life: address, parts, uvicorn, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, cast

import structlog
import uvicorn

from puna import __version__
from puna.engine.engine import Engine
from puna.errors import PunaError, StoreError
from puna.inference import Inference
from puna.lane import gone, in_hashing, in_jobs, take_short_turns
from puna.model.model import Model
from puna.scheduler.scheduler import Scheduler
from puna.server.app import create_app
from puna.server.collector import keep_what_is_there
from puna.server.contract.shapes import build
from puna.server.engines import engines, stand_in_for
from puna.server.metrics import Metrics
from puna.server.middleware import is_loopback, parse_origins
from puna.server.ollama.bodies import ChatBody, GenerateBody
from puna.server.openai.bodies import ChatCompletionBody
from puna.server.protocol import Limits, Protocol
from puna.server.services import Services
from puna.settings import IDENTITY, Address, SettingError, Settings
from puna.sources.packages import catalogue
from puna.sources.wiring import open_sources
from puna.state.wiring import open_state
from puna.store.blobs import stop_when
from puna.store.library import Library, StandIn
from puna.store.neighbours import neighbours
from puna.template.cage import Cage
from puna.types import Options

DRAIN_SECONDS = 5.0
"""How long requests under way may go on after a signal to stop; a second signal ends them at once."""

FAREWELL_SECONDS = 1.0
"""How long a request that is told to end has, to tell its client."""

LIMIT_SECONDS = 9.0
"""How long after the first signal the process may last, whatever its threads do: less than service managers wait."""

IDLE_SECONDS = 75
"""How long a connection without a request is kept. Longer than clients keep theirs, so that it is they who close."""

_log = structlog.stdlib.get_logger(__name__)


def run(settings: Settings, *, on_ready: Callable[[Address], None] = lambda _: None) -> int:
    """Serve until told to stop; the exit status: 0 after a request to end (SIGTERM), 130 after Ctrl-C.

    `on_ready` is told the address once it answers. Logging is configured by the caller. PunaError when it cannot begin;
    AddressInUse when something listens there.
    """
    parse_origins(settings.origins)
    take_short_turns()
    settings = within_files(settings, open_many_files())
    with listening(settings.address) as listener:
        return _run_loop(_serve(settings, listener, on_ready))


def open_many_files() -> int | None:
    """As many as this process may: each connection is one, and systems give fewer than are allowed (1,024). None: no
    limit is known."""
    try:
        import resource
    except ImportError:  # Windows, which counts otherwise
        return None
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS has a limit beside this one
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    least, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if least == resource.RLIM_INFINITY else least


AT_ONCE = 16
"""Connections that come in at once."""

OWN_FILES, FILES_EACH = 32 + AT_ONCE, 3
"""That the server has open for itself; and for a connection: it, another one to a runner, a file."""


def within_files(settings: Settings, files: int | None) -> Settings:
    """With no more connections than the files that the process may open suffice for, and what they ask for."""
    most = settings.max_connections if files is None else max((files - OWN_FILES) // FILES_EACH, 1)
    if settings.max_connections <= most:
        return settings
    _log.warning("fewer connections than PUNA_MAX_CONNECTIONS: few files may be open (ulimit -n)", most=most)
    return dataclasses.replace(settings, max_connections=most)


# --------------------------------------------------------------------------------------------------------- address


class AddressInUse(SettingError):
    """Something listens there already."""

    def __init__(self, address: Address) -> None:
        super().__init__(
            "PUNA_HOST", f"{address.host}:{address.port}", "an address that is free: something else listens there"
        )
        self.address = address


@contextlib.contextmanager
def listening(address: Address) -> Iterator[socket.socket]:
    """A socket that listens on `address`. SettingError says why it cannot."""
    if address.scheme == "https" or address.path:
        raise SettingError("PUNA_HOST", _url(address), "an address to listen on; this server speaks plain HTTP, at '/'")
    try:
        listener = _listen(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(address) from error
        reason = error.strerror or str(error)
        where = f"{address.host}:{address.port}"
        raise SettingError("PUNA_HOST", where, f"an address of this machine that may be used: {reason}") from error
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


def doors(listener: socket.socket) -> list[socket.socket]:
    """What a server is to listen on, to hear `listener`: itself, as often as connections are to come in at once.

    Of each, libuv takes one connection in a turn of the event loop. Whoever comes behind a hundred others would wait
    until all their requests had begun, one a turn, before it is known what he asks.
    """
    return [listener, *(listener.dup() for _ in range(AT_ONCE - 1))] if sys.platform != "win32" else [listener]


def _url(address: Address) -> str:
    return Address(address.host, address.port, address.scheme, address.path).url


def bound(listener: socket.socket, address: Address) -> Address:
    """The address that clients call; the port is the real one when 0 was asked for."""
    return Address(address.host, int(listener.getsockname()[1]))


# ------------------------------------------------------------------------------------------------------------ parts


@asynccontextmanager
async def parts(
    settings: Settings,
    found: Mapping[str, Engine],
    stand_in: StandIn = catalogue.stand_in,
    *,
    prune: bool = True,
    cage: Cage | None = None,
) -> AsyncIterator[Services]:
    """Everything that the routes need. Leaving it ends every runner. `prune`: tidy the store first.

    `cage`: one that several servers in a process share, and that its owner closes.
    """
    library = Library.open(
        settings.models,
        read_only=settings.read_only_models,
        no_prune=settings.no_prune,
        stand_in=stand_in,
    )
    if prune:
        await _prune(library)
    metrics = Metrics()
    scheduling = Scheduler(found, settings, verify=lambda model: _verify(library, model), observer=metrics)
    with contextlib.nullcontext(cage) if cage else Cage() as caged:
        async with (
            open_state(settings) as state,
            open_sources(settings, library) as sources,
            scheduling as scheduler,
        ):
            inference = Inference(library, scheduler, settings, caged)
            # The first list of a store that another program filled reads all of it: before anybody waits for it.
            listing = in_jobs.begin(library.survey) if prune else None
            try:
                yield Services(settings, library, sources, scheduler, inference, caged, metrics, state)
            finally:
                if listing is not None:
                    await gone(listing)


async def _verify(library: Library, model: Model) -> None:
    """Before its first load. Ends early when nobody wants the model any more."""
    await in_hashing(lambda left: library.verify(model, stop_when(left)))


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
    """uvicorn with an end of our own: its requests are told, and it says what it waits for.

    uvicorn's signal handlers raise the signal again at the end, before runners are closed; and what it cancels it logs
    with a traceback and cuts off.
    """

    def __init__(self, services: Services, *, on_ready: Callable[[], None], works: bool = True) -> None:
        """`works`: batches and responses in the background go on that are kept."""
        settings = services.settings
        limits = Limits(settings.max_connections, settings.read_timeout, settings.write_timeout)
        app = create_app(services)
        super().__init__(
            uvicorn.Config(
                app,
                http=cast("type[asyncio.Protocol]", partial(Protocol, limits=limits)),
                ws="none",
                access_log=False,
                log_config=None,
                lifespan="off",
                server_header=False,
                headers=[(IDENTITY, __version__)],
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=math.ceil(FAREWELL_SECONDS),
            )
        )
        self._on_ready = on_ready
        self._work = app.work
        self._background = app.background
        self._works = works
        self._ending = services.ending
        self._asked_to_stop = asyncio.Event()
        self._asked_to_hurry = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # uvicorn sets them once a second: the first answer must have them too.
        self.server_state.default_headers = self.config.encoded_headers
        if self._works:
            self._work.start()
            self._background.begin()
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """End when the requests under way have ended, or their time is over; at once when asked a second time."""
        if self.should_exit:
            self._asked_to_hurry.set()
        self.should_exit = True
        self._asked_to_stop.set()

    async def main_loop(self) -> None:
        """Once a second, for the date in answers. uvicorn looks ten times, and takes the processor from engines."""
        while not await self.on_tick(0):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._asked_to_stop.wait(), 1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()  # at once where it is idle, else after its answer
        await self._background.stop()
        await self._work.stop()  # what it did goes on at the next start
        await self._drain()
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        if running := self._ending.running:
            _log.info(
                f"stopping: waiting for {running} request{'s' if running > 1 else ''} "
                f"(at most {DRAIN_SECONDS:.0f} s; a second Ctrl-C stops now)"
            )
            await _first((self._ending.idle(), self._asked_to_hurry.wait()), DRAIN_SECONDS)
        if running := self._ending.running:
            _log.warning("ending requests before their answers are complete", count=running)
        self._ending.end_all()
        await _first((self._ending.idle(),), FAREWELL_SECONDS)


async def _first(waits: Sequence[Coroutine[Any, Any, object]], seconds: float) -> None:
    """Returns when one of them does, or the time is over."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def _serve(settings: Settings, listener: socket.socket, on_ready: Callable[[Address], None]) -> int:
    async with AsyncExitStack() as stack:
        found = engines(settings)
        services = await stack.enter_async_context(parts(settings, found, stand_in_for(found)))

        def ready() -> None:
            build(ChatCompletionBody, ChatBody, GenerateBody)
            _announce(settings, listener, on_ready)
            services.cage.start()  # beside what the first request needs, not before it

        server = Server(services, on_ready=ready)
        with _signals(server.stop) as caught:
            preloading = asyncio.create_task(_preload(services))
            try:
                await server.serve(sockets=doors(listener))
            finally:
                preloading.cancel()
                await asyncio.gather(preloading, return_exceptions=True)
            # While signals are still caught: nothing may keep the runners from being ended.
            await stack.aclose()
    _log.info("stopped")
    return _status(caught[0]) if caught else 0


def _status(number: int) -> int:
    return 130 if number == signal.SIGINT else 0


def _end_in_time(number: int) -> None:
    """Should a thread wait for a disk that does not answer, or anything else: children end when this process does."""

    def end() -> None:
        _log.error(f"ending: {LIMIT_SECONDS:g} s after the signal, work was still under way")
        os._exit(_status(number))

    timer = threading.Timer(LIMIT_SECONDS, end)
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # the system gives no more threads
        if sys.platform != "win32":
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(math.ceil(LIMIT_SECONDS))


async def _preload(services: Services) -> None:
    """The models that the settings name, one after the other. What cannot be loaded is logged, and tried by the first
    request to it."""
    for name in services.settings.preload:
        await _preload_one(services, name)


async def _preload_one(services: Services, name: str) -> None:
    try:
        await services.inference.load(name, Options(), None)
    except PunaError as error:
        _log.warning("not preloaded", model=name, reason=error.message)


def _announce(settings: Settings, listener: socket.socket, on_ready: Callable[[Address], None]) -> None:
    address = bound(listener, settings.address)
    keep_what_is_there()
    on_ready(address)
    _log.info(f"puna {__version__} listens on {address.url}", models=str(settings.models), engine=settings.engine)
    for neighbour in neighbours((settings.models, *settings.read_only_models)):
        _log.info(neighbour.offer)
    if not is_loopback(settings.address.host) and not settings.api_keys:
        _log.warning("whoever reaches this address can use the server: set PUNA_API_KEYS, or listen on 127.0.0.1")


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """`stop` is called for each signal to end. Gives the list of those that came."""
    loop = asyncio.get_running_loop()
    caught: list[int] = []

    def end(number: int) -> None:
        if not caught:
            _end_in_time(number)
        caught.append(number)
        stop()

    wanted = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        wanted.append(signal.SIGHUP)  # the terminal is gone; started with nohup, that is no reason to end
    try:
        for number in wanted:
            loop.add_signal_handler(number, end, number)
    except NotImplementedError:  # Windows: no loop there handles signals
        before = [signal.signal(number, lambda caught, _: loop.call_soon_threadsafe(end, caught)) for number in wanted]
        try:
            yield caught
        finally:
            for number, handler in zip(wanted, before, strict=True):
                signal.signal(number, handler)
        return
    try:
        yield caught
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)


def _run_loop(main: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(main)
    return uvloop.run(main)
