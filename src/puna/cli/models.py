"""`list`, `ps`, `show`, `cp`, `rm`, `stop` and `--version`: ask the server, print."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import puna
from puna.cli.connect import client, is_ours, settings, store
from puna.cli.flags import WrongUsage
from puna.cli.screen import columns
from puna.cli.text import processor, section, table
from puna.client.errors import NotPuna, ServerRefused, ServerUnreachable
from puna.client.models import Details, ModelSummary, RunningModel, WaitingRequest
from puna.errors import NotFound
from puna.human import human_bytes, human_past, human_until

if TYPE_CHECKING:
    from puna.client.card import ModelCard
    from puna.settings import Settings
    from puna.types import JsonObject, JsonValue

SELECTORS = ("license", "modelfile", "parameters", "system", "template")
"""What `show` can print alone."""

_SHOWN_LINES = 2
_ARRAY_COLUMNS = 10


async def version() -> None:
    """The running server's; and ours, where that is another or no server runs."""
    try:
        async with client(warn=False) as server:
            running = await server.identify()
    except ServerUnreachable:
        print("Warning: could not connect to a running Puna server", file=sys.stderr)
        running = puna.__version__
    except NotPuna as error:
        print(f"Warning: {error}", file=sys.stderr)
        running = puna.__version__
    print(f"puna version is {running}")
    if running != puna.__version__:
        print(f"Warning: client version is {puna.__version__}", file=sys.stderr)


async def list_models(prefix: str) -> None:
    """The prefix is matched without regard to case. Waits for no event loop."""
    values = settings()
    async with client(values, direct=True) as server:
        try:
            await server.identify()
        except ServerUnreachable:
            if not is_ours(server, values):
                raise
            models = _models_on_disk(values)
        else:
            models = await server.models()
    wanted = [model for model in models if model.name.lower().startswith(prefix.lower())]
    print(models_table(wanted, _now(), columns()))
    if not models and is_ours(server, values):
        _offer_others(values)


def _offer_others(values: Settings) -> None:
    """To who has no models here, and perhaps has some elsewhere."""
    from puna.store.neighbours import neighbours

    for neighbour in neighbours((values.models, *values.read_only_models)):
        print(neighbour.offer, file=sys.stderr)


def _models_on_disk(values: Settings) -> tuple[ModelSummary, ...]:
    """Without a server. To start its routes here, as other commands do, takes longer than a list may."""
    from puna.store.glance import glance

    listed, left_out = glance(values.models, values.read_only_models)
    for model in left_out:
        print(f"Warning: {model.name.short} is left out of the list: {model.reason}", file=sys.stderr)
    return tuple(
        ModelSummary(model.name.short, model.label.digest, model.label.size, model.modified, Details())
        for model in listed
    )


async def list_running(prefix: str, *, verbose: bool) -> None:
    async with client() as server:
        models, waiting = await server.at_work()
    wanted = [model for model in models if model.name.startswith(prefix)]
    print(running_table(wanted, _now(), columns(), verbose=verbose))
    if asked := [one for one in waiting if one.model.startswith(prefix)]:
        print(waiting_lines(asked), file=sys.stderr)


async def show(model: str, selected: Sequence[str], *, verbose: bool) -> None:
    if len(selected) > 1:
        *others, last = (f"'--{name}'" for name in SELECTORS)
        raise WrongUsage(f"only one of {', '.join(others)}, or {last} can be specified")
    async with store() as server:
        card = await server.show(model, verbose=verbose)
    print(selection(card, selected[0]) if selected else card_text(card, columns(), verbose=verbose), end="")


async def copy(source: str, destination: str) -> None:
    async with store() as server:
        await server.copy(source, destination)
    print(f"copied '{source}' to '{destination}'")


async def remove(models: Sequence[str]) -> None:
    """One after the other; the first that fails ends it."""
    async with store() as server:
        for model in models:
            await server.delete(model)
            print(f"deleted '{model}'", flush=True)


async def stop(model: str) -> None:
    async with client() as server:
        try:
            await server.unload(model)
        except ServerRefused as error:
            if error.http_status == 404:
                raise NotFound(f'couldn\'t find model "{model}" to stop') from error
            raise


# ----------------------------------------------------------------------------------------------------- what is printed


def models_table(models: Sequence[ModelSummary], now: datetime, columns: int | None = None) -> str:
    rows = [
        (
            model.name,
            model.digest[:12],
            "-" if model.remote else human_bytes(model.size),
            human_past(model.modified, now),
        )
        for model in models
    ]
    return table(("NAME", "ID", "SIZE", "MODIFIED"), rows, columns)


def running_table(models: Sequence[RunningModel], now: datetime, columns: int | None = None, *, verbose: bool) -> str:
    """Ollama's columns; `verbose` adds the engine and why it was chosen."""
    headers = ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    rows = [
        [
            model.name,
            model.digest[:12],
            human_bytes(model.size),
            processor(model.size, model.size_vram),
            str(model.num_ctx),
            human_until(model.expires, now),
        ]
        for model in models
    ]
    if verbose:
        headers += ["ENGINE", "REASON"]
        rows = [[*row, model.engine, model.engine_reason] for row, model in zip(rows, models, strict=True)]
    return table(headers, rows, columns)


def waiting_lines(waiting: Sequence[WaitingRequest]) -> str:
    """A line a model that requests wait for: how many, how long the first has, whether it is being loaded."""
    lines = []
    for model in dict.fromkeys(one.model for one in waiting):
        those = [one for one in waiting if one.model == model]
        loading = ", which is being loaded" if any(one.state == "loading" for one in those) else ""
        count = "1 request waits" if len(those) == 1 else f"{len(those)} requests wait"
        lines.append(f"{count} for {model}{loading}: {max(one.seconds for one in those):.0f} s so far")
    return "\n".join(lines)


def selection(card: ModelCard, name: str) -> str:
    """The text of one selector; system and template are printed as they are."""
    match name:
        case "license":
            return f"{card.license}\n"
        case "modelfile":
            return f"{card.modelfile}\n"
        case "parameters":
            return f"{card.parameters}\n"
        case "system":
            return card.system
        case _:
            return card.template


def card_text(card: ModelCard, columns: int | None = None, *, verbose: bool) -> str:
    """All sections of `show` that have something to say."""
    titled: list[tuple[str, Sequence[Sequence[str]]]] = [("Model", list(_model_rows(card)))]
    if card.capabilities:
        titled.append(("Capabilities", [_capability_row(word, card.tool_syntax) for word in card.capabilities]))
    if card.projector:
        titled.append(("Projector", list(_projector_rows(card.projector))))
    if card.parameters:
        titled.append(("Parameters", [_parameter_row(line) for line in card.parameters.splitlines()]))
    if verbose:
        info = sorted(card.info.items())
        titled.append(("Metadata", [(key, _metadata_text(value)) for key, value in info]))
        rows = [(name, kind, "[" + " ".join(map(str, shape)) + "]") for name, kind, shape in card.tensors]
        titled.append(("Tensors", rows))
    for title, text in (("System", card.system), ("License", card.license)):
        if text:
            titled.append((title, [(line,) for line in _first_lines(text)]))
    return "".join(section(title, rows, columns) for title, rows in titled)


_TOOL_SYNTAX = {"template": "in the syntax of its own template", "puna": "described by Puna, in Puna's syntax"}


def _capability_row(word: str, tool_syntax: str) -> tuple[str, ...]:
    """Of tools it is told whose syntax a call is written in."""
    return (word, _TOOL_SYNTAX[tool_syntax]) if word == "tools" and tool_syntax in _TOOL_SYNTAX else (word,)


def _model_rows(card: ModelCard) -> Iterator[tuple[str, str]]:
    from puna.model.model import size_text

    architecture = str(card.info.get("general.architecture") or card.details.family)
    yield "architecture", architecture
    count = card.info.get("general.parameter_count")
    yield "parameters", size_text(count) if isinstance(count, int) else card.details.parameter_size
    for label, key in (("context length", "context_length"), ("embedding length", "embedding_length")):
        value = card.info.get(f"{architecture}.{key}")
        if value is not None:
            yield label, str(value)
    yield "quantization", card.details.quantization_level
    if card.engine:
        yield "engine", f"{card.engine} ({card.engine_reason})" if card.engine_reason else card.engine
    if card.rendered_by:
        yield "prompts by", card.rendered_by
    if card.unused:
        yield "not used", card.unused


def _projector_rows(projector: JsonObject) -> Iterator[tuple[str, str]]:
    from puna.model.model import size_text

    yield "architecture", str(projector.get("general.architecture", ""))
    count = projector.get("general.parameter_count")
    if isinstance(count, int):
        yield "parameters", size_text(count)
    for label, key in (
        ("embedding length", "clip.vision.embedding_length"),
        ("dimensions", "clip.vision.projection_dim"),
    ):
        if key in projector:
            yield label, str(projector[key])


def _parameter_row(line: str) -> tuple[str, str]:
    name, _, value = line.partition(" ")
    return name, value.strip()


def _metadata_text(value: JsonValue) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if not isinstance(value, list):
        return "" if value is None else str(value)
    shown = ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value[:_ARRAY_COLUMNS])
    more = len(value) - _ARRAY_COLUMNS
    return f"[{shown}, ...+{more} more]" if more > 0 else f"[{shown}]"


def _first_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [*lines[:_SHOWN_LINES], "..."] if len(lines) > _SHOWN_LINES else lines


def _now() -> datetime:
    return datetime.now(timezone.utc)
