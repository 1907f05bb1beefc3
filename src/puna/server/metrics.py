"""`/metrics`: what the server does, in the text that Prometheus reads.

No label takes what a client made up: routes are those that there are, models those of the store, and no more than
`MODELS` of them have a series of their own.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from puna.inference.tally import Tally
from puna.observer import Observer
from puna.scheduler.scheduler import Scheduler

MODELS = 100
"""Models with series of their own; what others do is counted under OTHER."""

OTHER = "other"

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics(Observer):
    """Counts for the life of the server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._models: set[str] = set()
        self._requests = Counter(
            "puna_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._errors = Counter("puna_errors", "Errors told to clients, by code.", ["code"], registry=registry)
        self._seconds = Histogram(
            "puna_request_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._waited = Histogram(
            "puna_wait_seconds",
            "For a runner: in the queue, and for its load.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._first = Histogram(
            "puna_first_token_seconds",
            "Until the prompt of an answer was computed, waiting included.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "puna_tokens",
            "Tokens of prompts (cached: found in the cache, and counted as prompt too) and of answers.",
            ["model", "kind"],
            registry=registry,
        )
        self._loads = Counter(
            "puna_loads", "Models loaded, or not; outcome: ok, or an error's code.", ["model", "engine", "outcome"],
            registry=registry,
        )  # fmt: skip
        self._load_seconds = Histogram(
            "puna_load_seconds", "Loads that succeeded.", ["model", "engine"], buckets=_SECONDS, registry=registry
        )
        self._ended = Counter(
            "puna_runner_deaths", "Runners that ended on their own, or had to be ended.", ["model", "engine"],
            registry=registry,
        )  # fmt: skip
        self._running = Gauge("puna_requests_running", "Requests that have a runner.", ["model"], registry=registry)
        self._waiting = Gauge(
            "puna_requests_waiting", "Requests that wait for a runner or its slot.", registry=registry
        )
        self._memory = Gauge(
            "puna_model_memory_bytes", "Of loaded models, as reckoned or told by their engine.", ["model", "engine"],
            registry=registry,
        )  # fmt: skip

        self._lost = Gauge("puna_log_lines_lost", "Lines of the log that could not be written.", registry=registry)

    # ------------------------------------------------------------------------------------------------------ observer

    def loaded(self, model: str, engine: str, seconds: float) -> None:
        self._loads.labels(self._model(model), engine, "ok").inc()
        self._load_seconds.labels(self._model(model), engine).observe(seconds)

    def load_failed(self, model: str, engine: str, code: str) -> None:
        self._loads.labels(self._model(model), engine, code).inc()

    def runner_ended(self, model: str, engine: str) -> None:
        self._ended.labels(self._model(model), engine).inc()

    # ------------------------------------------------------------------------------------------------------ requests

    def answered(self, method: str, route: str | None, status: int, seconds: float, tally: Tally) -> None:
        """One request is over. `route`: its path as the route table has it; None if it has none."""
        label = route or OTHER
        self._requests.labels(method if route else OTHER, label, str(status)).inc()
        self._seconds.labels(label).observe(seconds)
        if not tally.tokens_in:
            return
        model = self._model(tally.model)
        self._waited.labels(model).observe(tally.waited_ns / 1e9)
        self._first.labels(model).observe((tally.waited_ns + tally.prompt_ns) / 1e9)
        for kind, count in (("prompt", tally.tokens_in), ("cached", tally.cached), ("completion", tally.tokens_out)):
            self._tokens.labels(model, kind).inc(count)

    def failed(self, code: str | None) -> None:
        """An error was told to a client, as an answer or in a stream."""
        self._errors.labels(code or OTHER).inc()

    def page(self, scheduler: Scheduler, *, lost: int = 0) -> bytes:
        """All of it, as it is now. `lost`: lines of the log."""
        self._lost.set(lost)
        self._running.clear()
        self._memory.clear()
        for one in scheduler.loaded():
            model = self._model(one.model.name.short)
            self._running.labels(model).inc(one.users)
            self._memory.labels(model, one.engine).inc(one.size)
        self._waiting.set(scheduler.waiting)
        return generate_latest(self._registry)

    def _model(self, name: str) -> str:
        if name in self._models or len(self._models) < MODELS:
            self._models.add(name)
            return name
        return OTHER
