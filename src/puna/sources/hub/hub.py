"""The hub as a source: `hf.co/ORG/REPO[:QUANTISATION]`, and the same under huggingface.co.

A pull asks the hub's own API which files there are, takes what the tag means (`choice`), and makes a manifest of them
with the template, the system message and the parameters that lie in the repository. What its client has on this machine
already is linked from there, and nothing is downloaded twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from puna.addresses import Reach
from puna.errors import (
    Forbidden,
    ModelFileError,
    SourceError,
    SourceNotFound,
    SourceUnreachable,
    Unsupported,
)
from puna.model.digest import Digest
from puna.model.manifest import (
    CONFIG_TYPE,
    LICENSE_TYPE,
    MODEL_TYPE,
    PARAMS_TYPE,
    PROJECTOR_TYPE,
    SYSTEM_TYPE,
    TEMPLATE_TYPE,
    Layer,
    Manifest,
)
from puna.model.model import config_of, media_type_of
from puna.model.name import Name
from puna.model.shards import together
from puna.plainfile import read_plain
from puna.sources.download import download
from puna.sources.hub.access import HOSTS, HubAccess, access
from puna.sources.hub.api import MAX_TEXT_BYTES, HubApi
from puna.sources.hub.cache import Cached
from puna.sources.hub.choice import Chosen, choose
from puna.sources.hub.repository import RepoFile, Repository
from puna.sources.net import Net
from puna.sources.partial import remove_leftover
from puna.sources.quota import Quota
from puna.sources.source import Found, Offer, Searched, Terms
from puna.sources.worker import Report, Worker
from puna.store.files import store_errors
from puna.store.library import Library
from puna.store.pulls import Pulled
from puna.types import JsonValue, Progress

_TEXTS = {"template": TEMPLATE_TYPE, "system": SYSTEM_TYPE, "params": PARAMS_TYPE}
"""Files of a repository that are meant for Ollama, by their names."""
_LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "COPYING")


@dataclass(frozen=True, slots=True)
class _Found:
    """`api`: None when the hub is not asked. `note`: what has to be told of that."""

    api: HubApi | None
    cached: Cached | None
    repository: Repository
    choice: Chosen
    note: str = ""

    @property
    def texts(self) -> list[tuple[str, RepoFile]]:
        """What becomes layers besides the GGUF files: media types and files, in Ollama's order."""
        named = ((media, self.repository.file(path)) for path, media in _TEXTS.items())
        found = [(media, file) for media, file in named if file is not None]
        licence = next((file for path in _LICENCES if (file := self.repository.file(path)) is not None), None)
        if licence is not None:
            found.insert(sum(media != PARAMS_TYPE for media, _ in found), (LICENSE_TYPE, licence))
        return found


class Hub:
    """A Source over one Net. `home`: the user's directory, where his token and the cache are, if no variable says.

    `limit`: bytes that one pull may download; 0: as many as the disk has room for.
    """

    title = "hf.co"

    def __init__(self, net: Net, home: Path | None, *, limit: int = 0) -> None:
        self._net = net
        self._home = home
        self._limit = limit

    def takes(self, name: Name, terms: Terms) -> bool:
        return name.host.lower() in HOSTS

    def check(self, name: Name, library: Library, terms: Terms) -> None:
        host = name.host.lower()
        if not self._net.destinations.permits(host):
            raise Forbidden(f"'{host}' is not among the hosts that PUNA_REGISTRIES allows", param="model")
        access(self._net.environment, self._home)

    async def offer(self, name: Name, terms: Terms) -> Offer:
        found = await self._find(name, terms)
        size = sum(file.size for file in (*found.choice.files, *(file for _, file in found.texts)))
        return Offer(source=self.title, revision=found.repository.revision, size=size)

    async def fetch(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        """See `puna.sources.source.Source`. The revision is noted (`Library.pulls`)."""
        found = await self._find(name, terms)
        if found.note:
            yield Progress(found.note)
        checked, quota = False, Quota(self._limit)
        if found.api is not None:
            missing = await asyncio.to_thread(_missing, found, library)
            quota.check(_title(name), missing)
        for file in found.choice.files:
            having = Worker(lambda report, file=file: _have(file, found.cached, library, report))  # type: ignore[misc]
            async for progress in having.run():
                yield progress
            if having.result:
                continue
            if found.api is None:
                raise SourceUnreachable(f"{_title(name)}: {file.path} is not whole in the hub's cache on this machine")
            if not checked:
                await found.api.check(found.repository, file)
                checked = True
            quota.take(_title(name), file.size)
            assert file.digest is not None
            origin = found.api.origin(found.repository, file)
            async with aclosing(download(self._net, origin, file.digest, file.size, library)) as steps:
                async for progress in steps:
                    yield progress
        yield Progress("verifying sha256 digest")
        texts = [(media, await self._text(found, file)) for media, file in found.texts]
        making = Worker(lambda _: _manifest(name, found, texts, library))
        async for progress in making.run():
            yield progress
        yield Progress("writing manifest")
        listing = Worker(lambda _: _list(name, making.result, found.repository.revision, library, terms.manifest))
        async for progress in listing.run():
            yield progress
        if listing.result:
            yield Progress("removing unused layers")

    def push(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        raise Unsupported(f"cannot push '{name.short}': to hf.co files go with its own client", param="model")

    async def search(self, word: str, terms: Terms) -> Searched:
        if not self._net.destinations.permits(self.title):
            raise Forbidden("PUNA_REGISTRIES does not list it")
        way = access(self._net.environment, self._home)
        if way.offline:
            raise SourceUnreachable("HF_HUB_OFFLINE is set")
        listed = await self._api(way, self.title, terms).search(word)
        return Searched(tuple(Found(name=f"hf.co/{id_}", source=self.title, description=text) for id_, text in listed))

    # ------------------------------------------------------------------------------------------------- what there is

    async def _find(self, name: Name, terms: Terms) -> _Found:
        """What the hub has; where it is not to be asked or cannot be, what its client has of it here."""
        way, id_, title = access(self._net.environment, self._home), f"{name.namespace}/{name.model}", _title(name)
        cached = None if way.cache is None else Cached(way.cache, id_)
        api = self._api(way, name.host.lower(), terms)
        if way.offline:
            here = None if cached is None else cached.repository()
            if here is None:
                raise SourceNotFound(f"{title} is not in the hub's cache, and HF_HUB_OFFLINE is set", param="model")
            note = "using the hub's cache on this machine: HF_HUB_OFFLINE is set"
            return _Found(None, cached, here, choose(here.files, name.tag, title), note)
        try:
            repository = await api.repository(id_)
        except SourceUnreachable as error:
            here = None if cached is None else cached.repository()
            if here is None:
                raise
            note = f"using the hub's cache on this machine: {error.message}"
            return _Found(None, cached, here, choose(here.files, name.tag, title), note)
        return _Found(api, cached, repository, choose(repository.files, name.tag, title))

    def _api(self, way: HubAccess, title: str, terms: Terms) -> HubApi:
        # Who starts the server with HF_ENDPOINT means that place, wherever it is.
        reach = Reach.ANY if way.chosen else self._net.destinations.reach(title, terms)
        return HubApi(self._net, way, reach, title)

    async def _text(self, found: _Found, file: RepoFile) -> bytes:
        if file.size > MAX_TEXT_BYTES:
            raise SourceError(f"{file.path} of {found.repository.id} is larger than {MAX_TEXT_BYTES} bytes")
        if found.api is not None:
            return await found.api.small(found.repository, file)
        path = None if found.cached is None else found.cached.file(found.repository.revision, file.path)
        if path is None:
            raise SourceUnreachable(f"{file.path} of {found.repository.id} is not in the hub's cache")
        with store_errors(f"reading {file.path} in the hub's cache"):
            return read_plain(path, MAX_TEXT_BYTES)


def _title(name: Name) -> str:
    return f"{name.host}/{name.namespace}/{name.model}"


def _missing(found: _Found, library: Library) -> int:
    """Bytes that are neither in the store nor in the hub's cache, by a look at sizes. Blocking."""

    def here(file: RepoFile) -> bool:
        if file.digest is None or library.blobs.looks_whole(file.digest, file.size):
            return file.digest is not None
        cached = None if found.cached is None else found.cached.blob(file.digest)
        return cached is not None and cached.stat().st_size == file.size

    return sum(file.size for file in (*found.choice.files, *(file for _, file in found.texts)) if not here(file))


def _have(file: RepoFile, cached: Cached | None, library: Library, report: Report) -> bool:
    """Whether the blob is in the store, whole; taken from the hub's cache if it is there. Blocking."""
    digest = file.digest
    assert digest is not None

    def on_bytes(done: int) -> None:
        report(Progress("verifying sha256 digest", str(digest), file.size, done))

    if library.blobs.fault(digest, file.size, on_bytes) is not None:
        source = None if cached is None else cached.blob(digest)
        if source is None or source.stat().st_size != file.size:
            return False
        try:
            library.blobs.add_file(source, on_bytes, expected=digest)
        except SourceError:
            return False  # damaged there: it is downloaded
        report(Progress(f"using {file.path} of the hub's cache"))
    remove_leftover(library.partials, digest)
    library.blobs.claim(digest)
    report(Progress(f"pulling {digest.hex[:12]}", str(digest), file.size, file.size))
    return True


def _manifest(name: Name, found: _Found, texts: Sequence[tuple[str, bytes]], library: Library) -> Manifest:
    """Of blobs that are all in the store. Blocking."""
    title = _title(name)
    weights = []
    for file in found.choice.weights.files:
        assert file.digest is not None
        header = library.header(library.blobs.path(file.digest), f"{title}/{file.path}")
        if media_type_of(header) != MODEL_TYPE:
            raise Unsupported(f"{title}: {file.path} holds no model but is of the kind '{header.kind}'", param="model")
        weights.append((Layer(MODEL_TYPE, file.digest, file.size, file.filename), header))
    try:
        whole = together(weights)
    except ModelFileError as error:
        raise ModelFileError(f"{title}: {error.message}") from error
    names = [layer.from_ for layer in whole.files]
    layers = [
        replace(layer, name=text if len(names) > 1 else None) for layer, text in zip(whole.files, names, strict=True)
    ]
    if (projector := found.choice.projector) is not None:
        assert projector.digest is not None
        header = library.header(library.blobs.path(projector.digest), f"{title}/{projector.path}")
        if media_type_of(header) != PROJECTOR_TYPE:
            raise ModelFileError(f"{title}: {projector.path} is no projector")
        layers.append(Layer(PROJECTOR_TYPE, projector.digest, projector.size, projector.filename))
    licensed = False
    for media, data in texts:
        if media == PARAMS_TYPE:
            _check_parameters(data, title)
        licensed |= media == LICENSE_TYPE
        layers.append(library.blobs.add_layer(media, data))
    if found.repository.license and not licensed:
        layers.append(library.blobs.add_layer(LICENSE_TYPE, found.repository.license.encode()))
    return Manifest(library.blobs.add_layer(CONFIG_TYPE, config_of(whole.header).dump()), tuple(layers))


def _list(
    name: Name, manifest: Manifest, revision: str, library: Library, expected: Digest | None
) -> tuple[Digest, ...]:
    """As `Library.write_manifest`, and which revision that was."""
    data = manifest.dump()
    removed = library.write_manifest(name, data, expected)
    library.pulls.note(name, Pulled(source=Hub.title, manifest=Digest.of(data), revision=revision))
    return removed


def _check_parameters(data: bytes, title: str) -> None:
    try:
        value: JsonValue = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{title}: its file 'params' is not JSON") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{title}: its file 'params' is not an object")
