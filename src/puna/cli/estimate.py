"""`estimate`: what a model would take of memory."""

from __future__ import annotations

import json
from dataclasses import asdict

from puna.cli.connect import store
from puna.cli.screen import columns
from puna.cli.text import section
from puna.client.card import MemoryNeed
from puna.human import human_bytes


async def estimate(model: str, num_ctx: int | None, *, as_json: bool) -> None:
    async with store() as server:
        need = await server.estimate(model, num_ctx)
    print(json.dumps(asdict(need), indent=2) if as_json else report(need, columns()))


def report(need: MemoryNeed, columns: int | None = None) -> str:
    requests = "one request" if need.slots == 1 else f"{need.slots} requests at once, each"
    largest = "none would fit"
    if need.largest_num_ctx is not None:
        least = "one request" if need.least_slots == 1 else f"each of {need.least_slots} requests"
        largest = f"{need.largest_num_ctx} tokens, for {least}"
    verdict = "fits" if need.fits else "does not fit"
    rows = [
        ("engine", need.engine),
        ("context", f"{requests} with {need.num_ctx} tokens"),
        ("weights", human_bytes(need.weights)),
        ("cache", human_bytes(need.cache)),
        ("work", human_bytes(need.compute)),
        ("together", f"{human_bytes(need.total)} of {human_bytes(need.available)} that could be had: {verdict}"),
        ("largest context", largest),
    ]
    return section(need.model, rows, columns).rstrip()
