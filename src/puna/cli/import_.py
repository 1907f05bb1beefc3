"""`import`: models out of a file that `export` wrote, or another tool that writes OCI image layouts."""

from __future__ import annotations

import sys
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from puna.carry.incoming import Taken, read_archive
from puna.cli.at_hand import library
from puna.cli.nofile import no_file
from puna.cli.progress import error_console, reporter, stopping
from puna.model.name import Name
from puna.plainfile import open_plain


def import_archive(file: str, name: str) -> None:
    """`file`: a path, or '-' for stdin. `name`: of the only model, '' where the archive says it."""
    wanted = Name.parse(name) if name else None
    if file == "-":
        taken = _take(sys.stdin.buffer, wanted)
    else:
        path = Path(file)
        if not path.is_file():
            raise no_file(path)
        with BufferedReader(open_plain(path)) as stream:
            taken = _take(stream, wanted)
    for model in taken:
        print(f"imported {model.name.short} {model.digest.short}")


def _take(stream: BinaryIO, name: Name | None) -> tuple[Taken, ...]:
    store, console = library(), error_console()
    with stopping("Stopped: nothing of the archive was taken in.", console), reporter(console) as shown:
        return read_archive(stream, store, shown.show, name=name)
