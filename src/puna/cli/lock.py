"""`lock`, and `pull --locked`: the models of a project, to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from puna.cli.connect import store
from puna.cli.progress import error_console, follow, stopping
from puna.client.client import Client
from puna.client.models import ModelSummary
from puna.errors import DigestMismatch, NotFound
from puna.model.digest import Digest
from puna.model.lock import Locked, dump_lock, parse_lock
from puna.model.name import Name
from puna.model.reference import Reference
from puna.plainfile import read_plain

MAX_LOCK_BYTES = 16 * 1024 * 1024


async def lock(models: Sequence[str], output: str, *, insecure: bool) -> None:
    """Write the lock file: models that are here as they are, others as their sources have them. Nothing is fetched."""
    for model in models:
        Reference.parse(model)
    async with store() as server:
        stored = await _stored(server)
        entries = [await _entry(server, model, stored, insecure=insecure) for model in models]
    Path(output).write_text(dump_lock(entries), encoding="utf-8")  # noqa: ASYNC240 - a command has nothing beside it
    print(f"wrote {output}: {', '.join(entry.wanted.name.short for entry in entries)}")


async def pull_locked(file: str, *, insecure: bool) -> None:
    """Every model of the lock file, as it says; the first that differs ends it."""
    entries, console = _read(Path(file)), error_console()
    async with store() as server:
        for entry in entries:
            console.print(entry.wanted.name.short, markup=False)
            told = f"Stopped before {entry.wanted.name.short} was fetched: what came before it is there."
            with stopping(told, console):
                await follow(server.pull(entry.wanted.short, insecure=insecure), console)
        stored = await _stored(server)
    for entry in entries:
        there = stored.get(entry.wanted.name.folded)
        if there is None or not entry.wanted.fits(there.digest) or there.size != entry.size:
            raise DigestMismatch(f"{entry.wanted.name.short} is not what {file} says")


def _read(path: Path) -> tuple[Locked, ...]:
    if not path.exists():
        raise NotFound(f"no such lock file: {path}")
    return parse_lock(read_plain(path, MAX_LOCK_BYTES).decode("utf-8", "replace"))


async def _stored(server: Client) -> dict[tuple[str, str, str, str], ModelSummary]:
    return {Name.parse(model.name).folded: model for model in await server.models()}


async def _entry(
    server: Client, text: str, stored: dict[tuple[str, str, str, str], ModelSummary], *, insecure: bool
) -> Locked:
    wanted = Reference.parse(text)
    model = stored.get(wanted.name.folded)
    if model is not None and wanted.fits(model.digest):
        card = await server.show(wanted.short)
        return Locked(
            wanted=Reference(Name.parse(model.name), Digest(model.digest)), size=model.size, source=card.source
        )
    offer = await server.offer(text, insecure=insecure)
    if not offer.manifest or offer.size is None:
        raise NotFound(
            f"'{wanted.short}' is not here, and {offer.source} does not tell before a pull what it will be: "
            f"'puna pull {wanted.short}' first"
        )
    return Locked(wanted=Reference(wanted.name, Digest.parse(offer.manifest)), size=offer.size, source=offer.source)
