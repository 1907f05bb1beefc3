"""`package`: wheels that carry a model, for a package index or a folder that pip looks into."""

from __future__ import annotations

from pathlib import Path

from puna.carry.packaging import project_name, write_wheels
from puna.cli.at_hand import library
from puna.cli.progress import error_console, reporter, stopping
from puna.errors import NotFound
from puna.human import human_bytes
from puna.model.reference import Reference


def package(model: str, output: str, *, name: str, version: str, part_size: int) -> None:
    """`name` '': made from the model's. `part_size`: bytes of weights in one wheel."""
    wanted = Reference.parse(model)
    directory = Path(output)
    if not directory.is_dir():
        raise NotFound(f"no such directory: {directory}")
    name = name or project_name(wanted.name)
    store, console = library(), error_console()
    with stopping("Stopped: the wheels that are whole are there, others are not.", console), reporter(console) as shown:
        packages = write_wheels(wanted, store, directory, shown.show, name=name, version=version, part=part_size)
    for one in packages:
        print(f"wrote {one.path} ({human_bytes(one.path.stat().st_size)})")
    print(f"once an index has {'them' if len(packages) > 1 else 'it'}: puna pull pypi/{name}:{version}")
