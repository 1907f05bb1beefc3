"""`pull` and `push`."""

from __future__ import annotations

from collections.abc import Sequence

from puna.cli.connect import store
from puna.cli.files import file_name, gguf_files, local_path, take_files
from puna.cli.flags import WrongUsage
from puna.cli.progress import error_console, follow, stopping
from puna.client.errors import ServerRefused
from puna.errors import PunaError
from puna.model.name import Name


async def pull(model: str, *, name: str, insecure: bool) -> None:
    """`name`: of a model that comes from a file; '': made from the file's."""
    console, path = error_console(), local_path(model)
    if path is not None:
        name = Name.parse(name).short if name else file_name(path)
        files = gguf_files(path)
        async with store() as server:
            console.print(f"importing {path} as {name}", markup=False)
            await take_files(server, name, files, console)
        return
    if name:
        raise WrongUsage("--name is for a model that comes from a file: others have the name they are pulled by")
    async with store() as server:
        with stopping(pull_stopped(model), console):
            await follow(server.pull(model, insecure=insecure), console)


class PullsFailed(PunaError):
    """Some of several models could not be fetched."""

    def __init__(self, models: Sequence[str]) -> None:
        super().__init__(f"not fetched, see above: {', '.join(models)}")


async def pull_all(*, insecure: bool) -> None:
    """Fetch anew what was pulled, where its source has another one or cannot tell. PullsFailed names what failed."""
    console = error_console()
    failed: list[str] = []
    async with store() as server:
        for one in await server.outdated((), insecure=insecure):
            console.print(f"{one.name}: {one.reason or one.state}", markup=False)
            if one.state not in {"outdated", "unknown"}:
                continue
            try:
                with stopping(pull_stopped(one.name), console):
                    await follow(server.pull(one.name, insecure=insecure), console)
            except ServerRefused as error:
                console.print(f"{one.name}: {error}", markup=False)
                failed.append(one.name)
    if failed:
        raise PullsFailed(failed)


async def push(model: str, *, insecure: bool) -> None:
    console = error_console()
    async with store() as server:
        with stopping(f"Stopped before all of {model} was sent: 'puna push {model}' sends the rest.", console):
            await follow(server.push(model, insecure=insecure), console)


def pull_stopped(model: str) -> str:
    return f"Stopped before {model} was fetched: nothing half-done is listed, 'puna pull {model}' begins again."
