"""Which sources there are, and in which order they are asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from puna.settings import Settings
from puna.sources.packages.packages import Packages
from puna.sources.sources import Sources
from puna.store.library import Library


@asynccontextmanager
async def open_sources(settings: Settings, library: Library) -> AsyncIterator[Sources]:
    """The sources of a server. What they hold open (connections) is closed on leaving."""
    yield Sources(library, [Packages(settings.max_download)])
