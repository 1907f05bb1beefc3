"""`create`: read a Modelfile, bring its files to the server, ask for the model."""

from __future__ import annotations

import sys
from pathlib import Path

from puna.cli.connect import store
from puna.cli.progress import Bars, Lines, error_console, follow, reporter, stopping
from puna.cli.upload import bring
from puna.client import Client
from puna.errors import InvalidRequest, NotFound, Unsupported
from puna.model.gguf import MAGIC
from puna.model.messages import messages_to_json
from puna.model.modelfile import Modelfile, decode_modelfile, parse_modelfile
from puna.model.name import Name
from puna.types import JsonObject


async def create(model: str, file: str, *, quantize: str) -> None:
    """A Modelfile that is not there is an error: nothing else is taken in its place."""
    Name.parse(model)
    path = Path(file)
    modelfile = read_modelfile(path)
    console = error_console()
    async with store() as server:
        with stopping(f"Stopped before {model} was made: nothing was changed.", console):
            with reporter(console) as shown:
                request = await _request(server, model, modelfile, path.parent, shown)
            if quantize:
                request["quantize"] = quantize
            await follow(server.create(request), console)


def read_modelfile(path: Path) -> Modelfile:
    if not path.is_file():
        raise NotFound(f"no such Modelfile: {path}")
    modelfile = parse_modelfile(decode_modelfile(path.read_bytes()))
    for name in modelfile.obsolete:
        print(f"Warning: parameter {name} has no effect", file=sys.stderr)
    if modelfile.drafts:
        raise Unsupported("DRAFT is not supported")
    return modelfile


def base_path(text: str, directory: Path) -> Path | None:
    """The file that FROM or ADAPTER means; None when it is a model's Name. Relative paths start at the Modelfile."""
    path = directory / Path(text).expanduser()
    if path.is_file():
        return path
    if path.is_dir() and (text.startswith((".", "/", "~"))):
        raise Unsupported(f"{text} is a directory: name a GGUF file")
    if text.startswith((".", "/", "~")) or text.lower().endswith(".gguf"):
        raise NotFound(f"no such file: {path}")
    return None


async def _request(
    server: Client, model: str, modelfile: Modelfile, directory: Path, shown: Bars | Lines
) -> JsonObject:
    request: JsonObject = {"model": model}
    files: dict[str, Path] = {}
    for text in modelfile.from_:
        path = base_path(text, directory)
        if path is None:
            request["from"] = text
        else:
            files[path.name] = path
    if files:
        request["files"] = await _bring_all(server, files, shown)
    if modelfile.adapter is not None:
        path = base_path(modelfile.adapter, directory)
        if path is None:
            raise InvalidRequest(f"ADAPTER {modelfile.adapter} is not a file")
        request["adapters"] = await _bring_all(server, {path.name: path}, shown)
    texts = {
        "template": modelfile.template,
        "system": modelfile.system,
        "renderer": modelfile.renderer,
        "parser": modelfile.parser,
        "requires": modelfile.requires,
    }
    request.update({key: text for key, text in texts.items() if text})
    if modelfile.licenses:
        request["license"] = list(modelfile.licenses)
    if modelfile.parameters:
        request["parameters"] = modelfile.parameters
    if modelfile.messages:
        request["messages"] = messages_to_json(modelfile.messages)
    return request


async def _bring_all(server: Client, files: dict[str, Path], shown: Bars | Lines) -> JsonObject:
    digests: JsonObject = {}
    for name, path in files.items():
        _check_kind(path)
        digests[name] = await bring(server, path, shown)
    return digests


def _check_kind(path: Path) -> None:
    """Before gigabytes are read and sent."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise Unsupported(f"{path} is not a GGUF file")
