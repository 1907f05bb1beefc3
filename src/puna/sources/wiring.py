"""Which sources there are, and in which order they are asked."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from puna import places
from puna.model.name import Name
from puna.settings import Settings
from puna.sources.file.file import LocalFiles
from puna.sources.hub.access import HOSTS
from puna.sources.late import Late
from puna.sources.packages.catalogue import CATALOGUE
from puna.sources.packages.packages import Packages
from puna.sources.source import Source
from puna.sources.sources import Sources
from puna.store.library import Library

if TYPE_CHECKING:
    from puna.sources.net import Net


@asynccontextmanager
async def open_sources(settings: Settings, library: Library) -> AsyncIterator[Sources]:
    """The sources of a server. What they hold open (connections) is closed on leaving."""
    wiring = _Wiring(settings)
    hub = Late("hf.co", lambda name, terms: name.host.lower() in HOSTS, wiring.hub)
    registries = Late("registries", lambda name, terms: True, wiring.registry)
    try:
        yield Sources(library, [LocalFiles(), Packages(settings.max_download), hub, registries])
    finally:
        await wiring.close()


class _Wiring:
    """Builds what is behind HTTP when it is first needed, on one Net."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def net(self) -> Net:
        from yarl import URL

        from puna.sources.net import Destinations, Net

        configured = frozenset(URL(url).authority for _, url in self._settings.mirrors)
        return Net(destinations=Destinations(allowed=self._settings.registries, configured=configured))

    async def close(self) -> None:
        if "net" in vars(self):
            await self.net.close()

    def hub(self) -> Source:
        from puna.sources.hub.hub import Hub

        return Hub(self.net, _home(), limit=self._settings.max_download)

    def registry(self) -> Source:
        from yarl import URL

        from puna.sources.registry.credentials import Credentials
        from puna.sources.registry.registry import Registry

        mirrors = defaultdict(list)
        for host, url in self._settings.mirrors:
            mirrors[host].append(URL(url))
        home = _home()
        return Registry(
            self.net,
            Credentials(os.environ, home),
            mirrors=mirrors,
            known=[Name.parse(text) for text in CATALOGUE],
            their_keys=() if home is None else (home / ".ollama" / "id_ed25519",),
            own_key=places.key(),
            limit=self._settings.max_download,
        )


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None
