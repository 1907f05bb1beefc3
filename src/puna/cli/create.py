"""`create`: read a Modelfile, bring its files to the server, ask for the model."""

from __future__ import annotations

import sys
from pathlib import Path

from puna.cli.connect import store
from puna.cli.files import base_files
from puna.cli.progress import Bars, Lines, error_console, follow, reporter, stopping
from puna.cli.upload import bring
from puna.client.client import Client
from puna.errors import InvalidRequest, NotFound, Unsupported
from puna.model.messages import messages_to_json
from puna.model.modelfile import Modelfile, decode_modelfile, parse_modelfile
from puna.model.name import Name
from puna.plainfile import read_plain
from puna.types import JsonObject

MAX_MODELFILE_BYTES = 16 * 1024 * 1024


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
    if not path.exists():
        raise NotFound(f"no such Modelfile: {path}")
    modelfile = parse_modelfile(decode_modelfile(read_plain(path, MAX_MODELFILE_BYTES)))
    for name in modelfile.obsolete:
        print(f"Warning: parameter {name} has no effect", file=sys.stderr)
    if modelfile.drafts:
        raise Unsupported("DRAFT is not supported")
    return modelfile


async def _request(
    server: Client, model: str, modelfile: Modelfile, directory: Path, shown: Bars | Lines
) -> JsonObject:
    request: JsonObject = {"model": model}
    files: dict[str, Path] = {}
    for text in modelfile.from_:
        found = base_files(text, directory)
        if found is None:
            request["from"] = text
        else:
            files |= found
    if files:
        request["files"] = await _bring_all(server, files, shown)
    if modelfile.adapter is not None:
        request["adapters"] = await _bring_all(server, adapter_files(modelfile.adapter, directory), shown)
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


ADAPTER_CONFIG = "adapter_config.json"


def adapter_files(text: str, directory: Path) -> dict[str, Path]:
    """A GGUF file; or an adapter as PEFT writes it: its directory, or its safetensors with the settings beside them."""
    path = directory / Path(text).expanduser()
    if path.is_dir():
        tensors = sorted(path.glob("adapter*.safetensors"))
        if not tensors and (path / "adapter_model.bin").is_file():
            raise Unsupported(
                f"ADAPTER {text}: adapter_model.bin is a pickle, which may hold code: save it as safetensors"
            )
        if not tensors:
            raise NotFound(f"ADAPTER {text}: no adapter_model.safetensors in that directory")
    elif not path.is_file():
        raise InvalidRequest(f"ADAPTER {text} is not a file")
    elif path.suffix.lower() != ".safetensors":
        return {path.name: path}
    else:
        tensors, path = [path], path.parent
    config = path / ADAPTER_CONFIG
    if not config.is_file():
        raise NotFound(f"ADAPTER {text}: no {ADAPTER_CONFIG} beside its safetensors")
    return {one.name: one for one in (config, *tensors)}


async def _bring_all(server: Client, files: dict[str, Path], shown: Bars | Lines) -> JsonObject:
    digests: JsonObject = {}
    for name, path in files.items():
        digests[name] = await bring(server, path, shown)
    return digests
