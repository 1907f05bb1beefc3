"""What an answer tells besides itself: fields without effect, and how far a seed can be trusted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from starlette.datastructures import State

from puna.errors import InvalidRequest
from puna.server.fields import IGNORED, field_list
from puna.types import Started

SEED = "x-puna-seed"


class Notes:
    """Writes them to the headers of the answer, whatever it becomes. What is known only after the status line (a stream
    that began with a comment, since its model took long to load) travels as a comment in the stream.

    `state`: the request's, as `middleware.Identify` made it.
    """

    def __init__(
        self,
        state: State,
        ignored: Iterable[str] = (),
        *,
        seeded: bool = False,
    ) -> None:
        self._headers: dict[str, str] = state.response_headers
        self._state = state
        self._seeded = seeded
        self._names: Mapping[str, str] = {}
        self.ignored: list[str] = []
        self.add(ignored)

    def add(self, paths: Iterable[str]) -> None:
        self.ignored += [path for path in dict.fromkeys(paths) if path not in self.ignored]
        if self.ignored:
            self._headers[IGNORED] = field_list(self.ignored)

    def call(self, names: Mapping[str, str]) -> None:
        """Settings of the house, and what this request calls them."""
        self._names = names

    @asynccontextmanager
    async def naming(self) -> AsyncIterator[None]:
        """Errors raised inside name the request's own fields."""
        try:
            yield
        except InvalidRequest as error:
            if error.param is not None:
                error.param = self._named(error.param)
            raise

    def _named(self, path: str) -> str:
        """A path of the house as this request calls it. What follows a `/` is the place in a schema."""
        field, slash, place = path.partition("/")
        return f"{self._names.get(field, field)}{slash}{place}"

    def start(self, started: Started) -> bytes:
        """Take what the engine says. Gives the comment that is due if the headers have gone."""
        before = dict(self._headers)
        self.add(map(self._named, started.ignored))
        if self._seeded:
            self._headers[SEED] = "exact" if started.seed_exact else "best-effort"
        if not self._state.responded:
            return b""
        late = self._headers.items() - before.items()
        return "".join(f": {name}: {value}\n\n" for name, value in sorted(late)).encode()
