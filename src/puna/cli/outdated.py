"""`outdated`: which models have a newer one where they came from."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from puna.cli.connect import store
from puna.cli.progress import error_console, waiting
from puna.cli.screen import columns
from puna.cli.text import table
from puna.client.offers import Renewal

_MEANT = {
    "current": "current",
    "outdated": "outdated",
    "own": "not pulled",
    "unknown": "cannot tell",
    "gone": "no longer there",
}


async def outdated(models: Sequence[str], *, as_json: bool, insecure: bool) -> None:
    """Of these, or of all when none is named. Why one is not current is told on stderr."""
    async with store() as server:
        with waiting("asking where the models came from", error_console()):
            found = await server.outdated(models, insecure=insecure)
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
        return
    print(report(found, columns()))
    for one in found:
        if one.reason:
            print(f"{one.name}: {one.reason}", file=sys.stderr)


def report(found: Sequence[Renewal], columns: int | None = None) -> str:
    """Without the reasons: they are sentences, and would make columns of any width."""
    rows = [(one.name, one.digest[:12], _MEANT.get(one.state, one.state), one.source) for one in found]
    return table(("NAME", "ID", "STATE", "SOURCE"), rows, columns)
