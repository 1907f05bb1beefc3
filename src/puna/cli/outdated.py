"""`outdated`: which models have a newer one where they came from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from puna.cli.connect import store
from puna.cli.progress import error_console, waiting
from puna.cli.text import table
from puna.client import Renewal

_MEANT = {
    "current": "current",
    "outdated": "outdated",
    "own": "not pulled",
    "unknown": "cannot tell",
    "gone": "no longer there",
}


async def outdated(models: Sequence[str], *, as_json: bool, insecure: bool) -> None:
    """Of these, or of all when none is named."""
    async with store() as server:
        with waiting("asking where the models came from", error_console()):
            found = await server.outdated(models, insecure=insecure)
    print(json.dumps([asdict(one) for one in found], indent=2) if as_json else report(found))


def report(found: Sequence[Renewal]) -> str:
    rows = [(one.name, one.digest[:12], _MEANT.get(one.state, one.state), one.source, one.reason) for one in found]
    return table(("NAME", "ID", "STATE", "SOURCE", "REASON"), rows)
