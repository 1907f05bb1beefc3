"""`search`: models that are here, and that sources list."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from puna.cli.connect import store
from puna.cli.progress import error_console, waiting
from puna.cli.screen import columns
from puna.cli.text import table
from puna.client.offers import Listing
from puna.human import human_bytes


async def search(word: str, *, insecure: bool) -> None:
    """What cannot be searched is told on stderr."""
    async with store() as server:
        with waiting("searching", error_console()):
            result = await server.search(word, insecure=insecure)
    print(report(result.models, columns()))
    for source, reason in result.unlisted:
        print(f"Not searched: {source}: {reason}", file=sys.stderr)


def report(models: Sequence[Listing], columns: int | None = None) -> str:
    rows = [
        (model.name, "-" if model.size is None else human_bytes(model.size), model.source, model.description)
        for model in models
    ]
    return table(("NAME", "SIZE", "SOURCE", "DESCRIPTION"), rows, columns)
