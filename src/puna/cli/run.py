"""`run`: answer once, hold a conversation, or embed. Brings the model and the server along when they are not there."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack

from rich.console import Console

from puna.cli.answer import Transcript, printer, show, stats_text, tell_notices
from puna.cli.ask import Ask, shared_fields
from puna.cli.background import ensure_server
from puna.cli.connect import client, settings
from puna.cli.files import beside, file_name, local_path, take_files
from puna.cli.media import attach
from puna.cli.nofile import no_file
from puna.cli.progress import error_console, follow, stopping, waiting
from puna.cli.transfer import pull_stopped
from puna.client.card import ModelCard
from puna.client.client import Client
from puna.client.errors import ServerRefused
from puna.errors import InvalidRequest
from puna.types import JsonObject


def can_converse() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


async def run(ask: Ask) -> None:
    shared = shared_fields(ask)
    values, console = settings(), error_console()
    path = local_path(ask.model)
    if path is not None and not path.is_file():
        raise no_file(path, ask.model)
    await ensure_server(values, console)
    async with client(values) as server:
        model = ask.model
        if path is not None:
            model = file_name(path)
            console.print(f"importing {path} as {model}", markup=False)
            await take_files(server, model, {one.name: one for one in beside(path)}, console)
        card = await present(server, model, console, insecure=ask.insecure)
        if "embedding" in card.capabilities and "completion" not in card.capabilities:
            await _embed(server, model, ask)
        elif ask.interactive and not ask.words:
            # The line editor takes a while to import, and an answer to one question needs none.
            from puna.cli.interactive import converse
            from puna.cli.session import Session

            await converse(Session(server, model, card, ask, shared), console)
        else:
            await _answer_once(server, {"model": model, **shared}, card, ask, console)


async def present(server: Client, model: str, console: Console, *, insecure: bool) -> ModelCard:
    """What the model is; pulled first when it is not here."""
    try:
        return await server.show(model)
    except ServerRefused as error:
        if error.http_status != 404:
            raise
    with stopping(pull_stopped(model), console):
        await follow(server.pull(model, insecure=insecure), console)
    return await server.show(model)


async def _answer_once(server: Client, request: JsonObject, card: ModelCard, ask: Ask, console: Console) -> None:
    attached = attach(ask.prompt, card.capabilities)
    for note in attached.notes:
        console.print(note, markup=False)
    if not attached.text and not attached.data:
        keep_alive = request.get("keep_alive")
        with waiting(f"loading {ask.model}", console):
            await server.load(str(request["model"]), str(keep_alive) if keep_alive is not None else None)
        return
    request["prompt"] = attached.text
    if attached.data:
        request["images"] = list(attached.data)
    said = Transcript()
    async with AsyncExitStack() as stack:
        with waiting(f"loading {ask.model}", console):
            answer = await stack.enter_async_context(server.generate(request))
        tell_notices(answer)
        try:
            await show(answer, printer(word_wrap=ask.word_wrap, hide_thinking=ask.hide_thinking), said)
        except asyncio.CancelledError:
            if sys.stdout.isatty():  # what follows the command begins a line of its own
                print(flush=True)
            raise
    print("\n")
    if ask.verbose and said.stats is not None:
        print(stats_text(said.stats), file=sys.stderr)


async def _embed(server: Client, model: str, ask: Ask) -> None:
    if not ask.prompt:
        raise InvalidRequest(f'embedding models require input text. Usage: puna run {ask.model} "your text here"')
    request: JsonObject = {"model": model, "input": ask.prompt}
    if ask.keep_alive is not None:
        request["keep_alive"] = ask.keep_alive
    if ask.truncate is not None:
        request["truncate"] = ask.truncate
    if ask.dimensions:
        request["dimensions"] = ask.dimensions
    embedding = await server.embed(request)
    if embedding.truncated:
        print("Warning: the text did not fit into the context and was cut", file=sys.stderr)
    print(json.dumps(embedding.vector, separators=(",", ":")))
