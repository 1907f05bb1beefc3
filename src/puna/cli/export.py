"""`export`: models into one file that `import` reads, or any tool that reads OCI image layouts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from puna.carry.outgoing import send_archive, write_archive
from puna.cli.at_hand import library
from puna.cli.progress import error_console, reporter, stopping
from puna.errors import InvalidRequest, NotFound
from puna.human import human_bytes
from puna.model.reference import Reference


def export(models: Sequence[str], output: str) -> None:
    """`output`: a path, or '-' for stdout."""
    names = [Reference.parse(model) for model in models]
    store, console = library(), error_console()
    if output == "-":
        if sys.stdout.isatty():
            raise InvalidRequest("an archive is not for a terminal: name a file with -o, or send it on")
        with reporter(console) as shown:
            send_archive(names, store, sys.stdout.buffer, shown.show)
        return
    path = Path(output)
    if not path.absolute().parent.is_dir():
        raise NotFound(f"no such directory: {path.absolute().parent}")
    with stopping(f"Stopped: {path} was not written.", console), reporter(console) as shown:
        write_archive(names, store, path, shown.show)
    print(f"wrote {path} ({human_bytes(path.stat().st_size)}): {', '.join(name.short for name in names)}")
