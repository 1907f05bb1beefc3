"""What an answer tells besides itself: everything that its request or its model had without effect.

This alone writes the headers of answers that report (`x-puna-version`, on every answer, says whose it is), and
`HEADERS` is the list of those that browsers may read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import quote

from starlette.datastructures import State

from puna.errors import InvalidRequest
from puna.inference.chat import CountedPrompt
from puna.inference.inference import LoadedModel
from puna.model.parameters import options_to_json
from puna.server.contract.converted import Converted, Request_co
from puna.server.contract.names import FieldNames
from puna.settings import LONGEST
from puna.types import Answer, Decisions, Embeddings, Event, Options, Ranking, Started

IGNORED = "x-puna-ignored"
"""The paths of the request's fields that had no effect."""

PARAMETERS = "x-puna-ignored-parameters"
"""The names of the model's stored parameters that had no effect."""

TRUNCATED = "x-puna-truncated"
"""How many old messages, or inputs to embed, did not fit and were cut."""

SEED = "x-puna-seed"
"""On requests with a seed: `exact` (the same bytes every time) or `best-effort`."""

FINISH = "x-puna-finish-reason"
"""`length`, where an answer that has no place for it ended where the context did: its end is missing."""

NONSTANDARD = "x-puna-nonstandard"
"""The paths of what the dialect's own server refuses and Puna serves: names of tools, more tools than there may be."""

HEADERS = (IGNORED, PARAMETERS, TRUNCATED, SEED, FINISH, NONSTANDARD)

_MOST = 100
"""Names in a header, at most; the rest is counted."""


class Report:
    """Written to the headers of the answer, whatever it becomes, an error too. What is known only after the status line
    (a stream that began with a comment, since its model took long to load) is due as a comment in the stream.

    `state`: the request's, as `middleware.Identify` made it.
    """

    def __init__(self, state: State, ignored: Iterable[str] = ()) -> None:
        self._state = state
        self._headers: dict[str, str] = state.response_headers
        self._seeded = False
        self._names = FieldNames()
        self._ignored: list[str] = []
        self.ignore(ignored)

    @property
    def told(self) -> dict[str, str]:
        """The headers that are written so far, for who asks for the answer again later."""
        return {name: self._headers[name] for name in HEADERS if name in self._headers}

    def ignore(self, paths: Iterable[str]) -> None:
        """Fields without effect, by the paths of this request."""
        self._ignored += [path for path in dict.fromkeys(paths) if path not in self._ignored]
        if self._ignored:
            self._headers[IGNORED] = listed(self._ignored)

    def repeat(self, told: Mapping[str, str]) -> None:
        """What was told of an earlier answer (`told`), which this one gives again."""
        own = self._headers.get(IGNORED)
        self._headers.update(told)
        if own is not None and IGNORED in told:
            self._headers[IGNORED] = f"{own}, {told[IGNORED]}"

    def take(self, converted: Converted[Request_co]) -> Request_co:
        """The request; what it had without effect is reported, and from here its fields have its own names."""
        self.ignore(converted.ignored)
        keep_alive = converted.request.keep_alive
        if keep_alive is not None and not -LONGEST < keep_alive < LONGEST:
            # It stays for ever: no clock here counts so far.
            self.ignore(("keep_alive",))
        if converted.nonstandard:
            self._headers[NONSTANDARD] = listed(converted.nonstandard)
        self._names = converted.names
        self._seeded = _seeded(converted.request.options)
        return converted.request

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Errors raised inside name the request's own fields."""
        try:
            yield
        except InvalidRequest as error:
            if error.param is not None:
                error.param = self._names.of(error.param)
            raise

    @asynccontextmanager
    async def reading(self, answer: Answer) -> AsyncIterator[AsyncIterator[Event]]:
        """The events of `answer`, whose errors name the request's own fields."""
        with self.naming():
            async with answer as events:
                yield events

    def start(self, started: Started) -> bytes:
        """Take what the engine says. Gives the comment that is due if the headers have gone."""
        before = dict(self._headers)
        self._told(started.ignored, started.ignored_parameters, started.dropped_messages)
        if self._seeded:
            self._headers[SEED] = "exact" if started.seed_exact else "best-effort"
        return self._late(before) if self._state.responded else b""

    def cut(self) -> bytes:
        """The answer was cut, and has no field for it. Gives the comment that is due if the headers have gone."""
        before = dict(self._headers)
        self._headers[FINISH] = "length"
        return self._late(before) if self._state.responded else b""

    def _late(self, before: Mapping[str, str]) -> bytes:
        late = self._headers.items() - before.items()
        return "".join(f": {name}: {value}\n\n" for name, value in sorted(late)).encode()

    def embedded(self, embeddings: Embeddings) -> None:
        """The same for vectors."""
        self._told(embeddings.ignored, embeddings.ignored_parameters, len(embeddings.truncated))

    def counted(self, counted: CountedPrompt) -> None:
        """The same for a prompt that is counted."""
        self._told(counted.ignored, counted.ignored_parameters, 0)

    def decided(self, decisions: Decisions) -> None:
        """The same for decisions."""
        self._told(decisions.ignored, decisions.ignored_parameters, 0)

    def ranked(self, ranking: Ranking) -> None:
        """The same for ranks."""
        self._told(ranking.ignored, ranking.ignored_parameters, len(ranking.truncated))

    def loaded(self, loaded: LoadedModel) -> None:
        """The same for a model that was only loaded."""
        self._told(loaded.ignored, loaded.ignored_parameters, 0)

    def unloaded(self, options: Options) -> None:
        """The same for a model that was unloaded: nothing is loaded by `options`."""
        self._told([*options_to_json(options)], (), 0)

    def estimated(self, ignored: Sequence[str], parameters: Sequence[str]) -> None:
        """The same for a model that is only reckoned."""
        self._told(ignored, parameters, 0)

    def _told(self, ignored: Sequence[str], parameters: Sequence[str], truncated: int) -> None:
        self.ignore(map(self._names.of, ignored))
        if parameters:
            self._headers[PARAMETERS] = listed(parameters)
        if truncated:
            self._headers[TRUNCATED] = str(truncated)


def _seeded(options: Options) -> bool:
    return options.seed is not None and options.seed != -1


def listed(paths: Sequence[str]) -> str:
    """Paths as a header's value, each once. They come from outside: what a header cannot hold is percent-encoded."""
    known = list(dict.fromkeys(paths))
    shown = [quote(path, safe="[]$@!#&'*+/")[:200] for path in known[:_MOST]]
    more = len(known) - _MOST
    return ", ".join([*shown, f"and {more} more"] if more > 0 else shown)
