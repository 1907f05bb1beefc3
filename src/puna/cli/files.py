"""Files of this machine that are to become a model: which they are, what it is called, and into the server's store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rich.console import Console

from puna.cli.nofile import no_file
from puna.cli.progress import follow, reporter, stopping
from puna.cli.upload import bring, digest_of
from puna.client.client import Client
from puna.client.errors import ServerRefused
from puna.errors import InvalidRequest, NotFound, Unsupported
from puna.model.shards import ShardName
from puna.types import JsonObject

IMPORTED = "local"
"""The namespace of models that were made from a file: they never stand in the way of a model of the library."""

_BEGINNINGS = ("./", "../", "/", "~", ".\\", "file:")


def local_path(text: str) -> Path | None:
    """The path that a model's argument is (also as `file:///…`), there or not; None when it is a Name."""
    if text.startswith("file:"):
        parts = urlsplit(text)
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise InvalidRequest(f"{text} names no file of this machine: expected file:///PATH")
        return Path(unquote(parts.path))
    path = Path(text).expanduser()
    if text.startswith(_BEGINNINGS) or (text.lower().endswith(".gguf") and path.is_file()):
        return path
    return None


def file_name(path: Path) -> str:
    """The Name under which a file or a directory is imported: its own name, in the letters that a Name may have."""
    shard = ShardName.parse(path.name)
    own = path.absolute().name if path.is_dir() else path.stem
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", own if shard is None else shard.stem).strip("-.").lower()
    return f"{IMPORTED}/{stem[:80] or 'model'}"


async def take_files(server: Client, name: str, files: Mapping[str, Path], console: Console) -> None:
    """GGUF files become a model: by their paths where the server is here and may read them, else by their bytes."""
    with stopping(f"Stopped before {name} was made: nothing was changed.", console):
        if server.local:
            with reporter(console) as shown:
                paths = {str(path.resolve()): await digest_of(path, shown) for path in files.values()}
            try:
                await follow(server.pull_files(name, paths), console)
                return
            except ServerRefused as error:
                if error.http_status != 400 or "send its bytes" not in str(error):
                    raise
        with reporter(console) as shown:
            sent: JsonObject = {file: await bring(server, path, shown) for file, path in files.items()}
        await follow(server.create({"model": name, "files": sent}), console)


def gguf_files(path: Path) -> dict[str, Path]:
    """The GGUF files of a model that a path names: the file with its shards, or all of a directory."""
    if path.is_dir():
        found = published(path)
        if any(one.suffix.lower() != ".gguf" for one in found):
            raise Unsupported(f"{path} holds safetensors: 'puna create NAME' with 'FROM {path}' converts them")
        return {one.name: one for one in found}
    if not path.is_file():
        raise no_file(path)
    return {one.name: one for one in beside(path)}


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
        raise no_file(path)
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
