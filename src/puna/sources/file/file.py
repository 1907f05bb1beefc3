"""Files of this machine as a Source: GGUF files that a program here names become a model, without a second copy where
the file system allows.

Who names a file has to know its sha256, and so has read it: nothing comes out of this that could not have been
uploaded, whatever this process may read and the caller may not. Whatever is wrong with a path, the refusal is the
same and tells nothing of the file.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from puna.errors import Cancelled, Forbidden, InvalidRequest, ModelFileError, PunaError, StoreError, Unsupported
from puna.model.composition import composed
from puna.model.gguf import Header, read_header
from puna.model.manifest import CONFIG_TYPE, Layer, Manifest
from puna.model.model import config_of, media_type_of
from puna.model.name import Name
from puna.sources.source import LocalFile, Offer, Searched, Terms
from puna.sources.worker import Report, Worker
from puna.store.library import Library
from puna.types import Progress


class LocalFiles:
    """Takes any Name whose files are named with it."""

    title = "files of this machine"

    def takes(self, name: Name, terms: Terms) -> bool:
        return bool(terms.files)

    def check(self, name: Name, library: Library, terms: Terms) -> None:
        if not terms.local:
            raise Forbidden("files are only for programs on this machine: upload them", param="files")
        if any(not file.path.is_absolute() for file in terms.files):
            raise _refused()

    async def offer(self, name: Name, terms: Terms) -> Offer:
        return Offer(source=self.title)

    async def fetch(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        taken: list[tuple[Layer, Header]] = []
        for file in terms.files:
            taking = Worker(lambda report, file=file: _take(file, library, report))  # type: ignore[misc]
            async for progress in taking.run():
                yield progress
            taken.append(taking.result)
        layers, header = composed(taken)
        yield Progress("writing manifest")
        config = config_of(header).dump()
        listing = Worker(
            lambda _: library.write_manifest(
                name, Manifest(library.blobs.add_layer(CONFIG_TYPE, config), layers), terms.manifest
            )
        )
        async for progress in listing.run():
            yield progress
        if listing.result:
            yield Progress("removing unused layers")

    def push(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        raise Unsupported(f"cannot push '{name.short}' into files: 'puna export' writes one", param="files")

    async def search(self, word: str, terms: Terms) -> Searched:
        return Searched()


def _take(file: LocalFile, library: Library, report: Report) -> tuple[Layer, Header]:
    """Into the store, linked where that can be; a copy is told as it grows. Blocking."""
    label, what = str(file.digest), file.path.name
    if not library.blobs.intact(file.digest, on_bytes=lambda done: report(Progress("verifying sha256 digest", label))):
        try:
            total = file.path.stat().st_size
            library.blobs.add_file(
                file.path,
                lambda done: report(Progress("verifying sha256 digest", label, total, done)),
                expected=file.digest,
                on_copied=lambda done: report(Progress(f"copying {what}", label, total, done)),
            )
        except (Cancelled, StoreError) as error:
            if isinstance(error, Cancelled) or error.code == "disk_full":
                raise
            raise _refused() from error
        except (PunaError, OSError, ValueError) as error:
            raise _refused() from error
    library.blobs.claim(file.digest)
    path = library.blobs.path(file.digest)
    try:
        header = read_header(path, name=what)
    except ModelFileError as error:
        raise ModelFileError(f"{error.message}: only GGUF files can be taken; 'puna create' converts others") from error
    size = path.stat().st_size
    report(Progress(f"pulling {file.digest.short}", label, size, size))
    return Layer(media_type_of(header), file.digest, size, what), header


def _refused() -> InvalidRequest:
    return InvalidRequest("a file cannot be taken from where it is: send its bytes", param="files", code="local_file")
