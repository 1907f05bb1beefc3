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
from puna.model.shards import ShardName
from puna.plainfile import NotPlain, open_plain, read_plain
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


def base_files(text: str, directory: Path) -> dict[str, Path] | None:
    """The files that FROM means, by the path each is to have; None when it is a model's Name.

    Relative paths start at the Modelfile. Of a model in shards the first one means all that lie beside it. A directory
    means what a model is published as: its safetensors with their settings, or else all GGUF files.
    """
    path = directory / Path(text).expanduser()
    if path.is_file():
        return {one.name: one for one in beside(path)}
    if path.is_dir() and text.startswith((".", "/", "~")):
        return {one.relative_to(path).as_posix(): one for one in published(path)}
    if text.startswith((".", "/", "~")) or text.lower().endswith(".gguf"):
        raise NotFound(f"no such file: {path}")
    return None


_SETTINGS = ("*.json", "*/*.json", "chat_template.jinja", "tokenizer.model", "vocab.txt", "merges.txt")
"""What belongs to safetensors, beside them."""


def published(directory: Path) -> list[Path]:
    """The files of a model in a directory: its safetensors with their settings, else all GGUF files."""
    tensors = sorted(one for one in directory.glob("*.safetensors") if not one.name.startswith("adapter"))
    if tensors:
        others = (one for pattern in _SETTINGS for one in sorted(directory.glob(pattern)))
        return [*tensors, *(one for one in others if one.is_file())]
    found = sorted(one for one in directory.iterdir() if one.suffix.lower() == ".gguf" and one.is_file())
    if not found:
        raise NotFound(f"no GGUF and no safetensors files in {directory}")
    return found


def beside(path: Path) -> list[Path]:
    """The file, or all shards of its model where it is the first. NotFound names those that are missing."""
    shard = ShardName.parse(path.name)
    if shard is None or shard.number != 1:
        return [path]
    paths = [path.with_name(name) for name in shard.all]
    missing = [one.name for one in paths if not one.is_file()]
    if missing:
        raise NotFound(f"{path.name} is one of {shard.count} files, and not there are: {', '.join(missing)}")
    return paths


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
        _check_kind(path)
        digests[name] = await bring(server, path, shown)
    return digests


def _check_kind(path: Path) -> None:
    """Before gigabytes are read and sent."""
    if path.suffix.lower() in {".safetensors", ".json", ".jinja", ".model", ".txt"}:
        return
    try:
        with open_plain(path) as file:
            start = file.read(len(MAGIC))
    except NotPlain as error:
        raise InvalidRequest(f"{path} is {error.strerror}") from error
    if start != MAGIC:
        raise Unsupported(f"{path} is not a GGUF file")
