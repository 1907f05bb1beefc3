"""Library: the models directory as a whole, Names to Models.

One store of our own and any number of read-only ones beside it, each in Ollama's layout. A Name is looked for in the
own store first. What is resolved is remembered until a file of it changes, so that resolving costs a few `stat`s.
A Name that no store has may still be answered for: see `StandIn`.
Blocking and safe to call from several threads.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import structlog

from puna.errors import (
    Conflict,
    DigestMismatch,
    ModelDamaged,
    ModelFileError,
    ModelNotFound,
    PunaError,
    StoreError,
    Unsupported,
)
from puna.model.digest import Digest
from puna.model.gguf import Header, read_header
from puna.model.listed import LeftOut, Listed
from puna.model.manifest import (
    Layer,
    Manifest,
    parse_manifest,
)
from puna.model.model import Model
from puna.model.name import Name, nearest
from puna.model.reference import Reference, Wanted, reference
from puna.model.shards import read_whole
from puna.store.blobs import OnBytes, damaged
from puna.store.changing import Changing
from puna.store.files import is_temporary, remove_empty, store_errors, write_errors
from puna.store.pulls import FILE_NAME as PULLS
from puna.store.pulls import Pulls
from puna.store.reading import Reading, part_of
from puna.store.shelf import FILE_NAME as SHELF
from puna.store.shelf import Shelf
from puna.store.stamp import Stamp
from puna.store.stores import FoundManifest, Store, lookup, open_stores, settled, sound
from puna.store.survey import survey
from puna.store.transfers import Transfers

PRUNE_AGE = 3600.0
"""Seconds for which an unused blob is left alone: another process may be about to write its manifest."""
PARTIAL_AGE = 7 * 86_400.0
"""Seconds for which a download or an upload that was broken off can go on."""
CLAIMED_SECONDS = 60.0
"""For which a blob that was stored anew is left alone when the manifest that named it before goes."""
_REMEMBERED = 512

StandIn: TypeAlias = Callable[[Name, Callable[[Name], "Model | None"]], "Model | None"]
"""Given a Name that is not stored, and how to look at what is: the Model that answers for it, if any.

It answers requests only. The Name stays out of lists, and can be neither copied nor removed.
"""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    manifest: Stamp
    weights: tuple[Stamp | None, ...]
    model: Model

    def holds(self, manifest: Stamp) -> bool:
        """Whether no file of it has changed; `manifest`: its stamp now."""
        return self.manifest == manifest and tuple(map(_stamp, self.model.files)) == self.weights


class Library:
    """All models of a directory, by Name.

    `blobs` are the own store's, finding those of the others too; `transfers`: pulls under way;
    `pulls`: what was pulled.
    """

    def __init__(self, own: Store, others: Sequence[Store], no_prune: bool, stand_in: StandIn) -> None:
        self.blobs = own.blobs
        self._stand_in = stand_in
        self.pulls = Pulls(own.root / PULLS)
        self.transfers = Transfers()
        self._own = own
        self._stores = (own, *others)
        self._no_prune = no_prune
        self._known: dict[tuple[Path, Name], _Known] = {}
        self._headers: dict[Path, tuple[Stamp, Header]] = {}
        self._shelf = Shelf(own.root / SHELF)
        self._unreadable: dict[Path, Stamp] = {}
        self._remembering = threading.Lock()
        self._surveying = threading.Lock()
        self._changing = Changing(own.root)
        self._held: list[Collection[Digest]] = []

    @classmethod
    def open(
        cls,
        models: Path,
        *,
        read_only: Sequence[Path] = (),
        no_prune: bool = False,
        stand_in: StandIn = lambda name, stored: None,
    ) -> Library:
        """Makes nothing on the disk. StoreError when a path is no directory, or a read-only one is missing."""
        own, *others = open_stores(models, read_only)
        return cls(own, others, no_prune, stand_in)

    @property
    def root(self) -> Path:
        """The own models directory."""
        return self._own.root

    @property
    def downloads(self) -> Path:
        """Where sources put what is on its way, on the same disk as the blobs."""
        return self.root / "downloads"

    @contextmanager
    def scratch(self, kind: str) -> Iterator[Path]:
        """A private directory on the disk of the blobs, gone afterwards. `kind`: what its name begins with."""
        with write_errors("making a directory for what is on its way"):
            self.downloads.mkdir(parents=True, exist_ok=True)
            directory = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self.downloads))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @property
    def partials(self) -> Path:
        """Where downloads that can go on lie until they are blobs, a directory each."""
        return self.root / "partial"

    @property
    def uploads(self) -> Path:
        """Where it is noted which uploads a registry has begun, a directory each."""
        return self.root / "uploads"

    # ---------------------------------------------------------------------------------------------------- reading

    def resolve(self, wanted: Wanted) -> Model:
        """ModelNotFound, or ModelFileError or StoreError when it is there but not usable."""
        wanted = reference(wanted)
        model = self._stored(wanted.name) or self._stand_in(wanted.name, self._stored)
        if model is None:
            raise self._missing(wanted.name)
        _check(wanted, model.digest)
        return model

    def known(self, wanted: Wanted) -> Model | None:
        """What `resolve` gave before, if that still holds: a few looks at the disk, no reading. None: resolve it."""
        wanted = reference(wanted)
        try:
            if self._lookup(wanted.name) is None:
                model = self._stand_in(wanted.name, self._remembered)
            else:
                model = self._remembered(wanted.name)
        except PunaError:
            return None
        return model if model is not None and wanted.fits(model.digest) else None

    def has(self, name: Name) -> bool:
        """Whether there is a manifest under that Name, usable or not."""
        return self._lookup(name) is not None

    def near(self, name: Name, *others: Name) -> list[str]:
        """Short forms of the few stored Names, and of `others`, that may have been meant by one that is not there."""
        stored = (known for store in self._stores for known in store.manifests.names())
        return [known.short for known in nearest(name, dict.fromkeys((*others, *stored)))]

    def names(self) -> list[Name]:
        """Of all models, usable or not, sorted. What lies there and is no file (a pipe, a link to nowhere) is none."""
        found: dict[tuple[str, str, str, str], Name] = {}
        for store in self._stores:
            for name, _ in store.manifests.stamped():
                found.setdefault(name.folded, name)
        return sorted(found.values(), key=lambda name: name.folded)

    def stored(self, name: Name) -> tuple[bytes, tuple[bytes, ...]]:
        """The bytes of its manifest, sound or not, and of what was written there, the last first. ModelNotFound."""
        store, spelled, _ = self._find(name)
        return store.manifests.read(spelled), store.kept.copies(spelled)

    def digests(self, name: Name) -> frozenset[Digest]:
        """Of all blobs that its manifest names; none when it cannot be read."""
        try:
            return frozenset(layer.digest for layer in parse_manifest(self.stored(name)[0]).blobs)
        except PunaError:
            return frozenset()

    def listed(self) -> list[Listed]:
        """All that can be used, newest first, with what lists say of each. Each other is logged once.

        A model is read only when something of it changed since the last list, of whichever process.
        """
        found, left_out = self.survey()
        for one in left_out:
            for store in self._stores:
                self._warn(store.manifests.path(one.name), one.name, one.reason)
        return found

    def survey(self) -> tuple[list[Listed], list[LeftOut]]:
        """What `listed` lists, and what it leaves out."""
        # Whoever comes while a large store is read for the first time waits, and then reads nothing.
        with self._surveying:
            return survey(self._stores, self._shelf, self.header)

    def manifest_bytes(self, wanted: Wanted) -> bytes:
        """As they came. ModelNotFound."""
        wanted = reference(wanted)
        data = self._present(wanted.name, lambda store, spelled, _: store.manifests.read(spelled))
        _check(wanted, hashlib.sha256(data).hexdigest())
        return data

    def expect(self, wanted: Wanted) -> None:
        """ModelNotFound when another manifest is under that Name than its digest says. Without a digest any will do."""
        if reference(wanted).digest is not None:
            self.manifest_bytes(wanted)

    def headers(self, model: Model, *, arrays: bool) -> tuple[Header, list[Header]]:
        """Of its weights and its projectors; with `arrays` read anew, with all their arrays.

        ModelNotFound when they were deleted since `model` was resolved.
        """
        try:
            return self._headers_of(model, arrays)
        except (StoreError, ModelDamaged):
            return self._headers_of(self.resolve(model.name), arrays)

    def _headers_of(self, model: Model, arrays: bool) -> tuple[Header, list[Header]]:
        if not arrays:
            return model.header, [self.header(path) for path in model.projectors]
        with store_errors("reading a model file"):
            header = read_whole(model.files, arrays=True)
            return header, [read_header(path, arrays=True) for path in model.projectors]

    def spelled(self, name: Name) -> Name:
        """The Name as it is stored, where case differs; as it is given, where nothing like it is."""
        return self._own.manifests.spelled(name)

    def header(self, path: Path, what: str = "") -> Header:
        """The header of a GGUF file, remembered until the file changes. `what`: the file in its user's words."""
        with store_errors("reading a model file"):
            stamp = Stamp.of(path)
            known = self._headers.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            header = read_header(path, name=what)
        self._remember(self._headers, path, (stamp, header))
        return header

    def verify(self, model: Model, on_bytes: OnBytes | None = None) -> None:
        """Make sure that the files a runner will load hold what their digests say. ModelDamaged names what is wrong.

        Hashes a file once, and again only after it changed. `on_bytes` is told of it, and may raise to stop it. What
        another process removed because it replaced the model is no damage, but for the files.
        """
        at = {Digest.parse(path.name): path for path in (*model.files, *model.projectors, *model.adapters)}
        # A model that stands in for others lies outside of the store, and is its weights alone.
        stored = any(model.weights.parent == store.blobs.directory for store in self._stores)
        for layer in dict.fromkeys(model.manifest.blobs):
            if stored or layer.digest in at:
                fault = self.blobs.fault(layer.digest, layer.size, on_bytes, path=at.get(layer.digest))
                if fault is None:
                    continue
                if layer.digest not in at and self._has_changed(model):
                    continue  # what it says was read before, and its runner may be others' too
                raise damaged(fault, layer.digest, part_of(layer, model.name), model.name.short)

    def _has_changed(self, model: Model) -> bool:
        """Whether another manifest than the model's is under its Name now, or none."""
        try:
            return hashlib.sha256(self.manifest_bytes(model.name)).hexdigest() != model.digest
        except PunaError:
            return True

    def intact(self, layer: Layer, on_bytes: OnBytes | None = None) -> bool:
        """Whether a source need not bring this layer: it is there, and its digest was seen on this disk, or is now."""
        return self.blobs.intact(layer.digest, layer.size, on_bytes)

    # ---------------------------------------------------------------------------------------------------- writing

    def write_manifest(
        self, name: Name, manifest: Manifest | bytes, expected: Digest | None = None
    ) -> tuple[Digest, ...]:
        """List a model, or replace one. Bytes are kept as they are. Gives the blobs removed as no longer used.

        Conflict when a blob of it is missing, StoreError when it has another size: what is listed is whole.
        DigestMismatch when it is not the manifest that was `expected`.
        """
        data = manifest if isinstance(manifest, bytes) else manifest.dump()
        check_expected(name, data, expected)
        parsed = parse_manifest(data)
        with self._changing:
            for layer in parsed.blobs:
                if not self.blobs.has(layer.digest):
                    raise Conflict(f"blob {layer.digest} is not there, or was removed by another request")
                if self.blobs.size(layer.digest) != layer.size:
                    raise StoreError(f"blob {layer.digest} does not have the {layer.size} bytes its manifest says")
            name = self._own.manifests.spelled(name)
            before, stamp = self._blobs_of(name), self._own.manifests.stamp(name)
            self._own.kept.keep(name, data)
            self._own.manifests.write(name, data)
            return () if self._no_prune else self._remove_unused(before, stamp)

    def put_back(self, name: Name, data: bytes) -> None:
        """A manifest as it was, whatever became of its blobs: they are told of then. Gives up no blob."""
        with self._changing:
            name = self._own.manifests.spelled(name)
            self._own.kept.keep(name, data)
            self._own.manifests.write(name, data)

    @contextmanager
    def holding(self, digests: Collection[Digest]) -> Iterator[None]:
        """Meanwhile this process removes none of these blobs, whoever uses them."""
        self._held.append(digests)
        try:
            yield
        finally:
            self._held.remove(digests)

    def copy(self, source: Wanted, destination: Name) -> None:
        """The same manifest under another Name. ModelNotFound when there is no source."""
        wanted = reference(source)
        self._find(wanted.name)  # what is not there changes nothing
        with self._changing:
            store, spelled, data = self._present(
                wanted.name, lambda store, spelled, _: (store, spelled, store.manifests.read(spelled))
            )
            _check(wanted, hashlib.sha256(data).hexdigest())
            if store.read_only:
                self._adopt(parse_manifest(data))
            if not store.read_only and self._own.manifests.spelled(destination) == spelled:
                return
            self.write_manifest(destination, data)

    def delete(self, wanted: Wanted) -> None:
        """Remove the manifest and the blobs that nothing else uses.

        ModelNotFound; Unsupported when the model lies in a read-only store.
        """
        name = reference(wanted).name
        self._find(name)  # what is not there changes nothing
        with self._changing:
            self.expect(wanted)
            spelled = self._own.manifests.spelled(name)
            stamp = self._own.manifests.stamp(spelled)
            if stamp is None:
                store, _, _ = self._find(name)
                if not store.read_only:
                    raise self._missing(name)  # it was not there when we looked, and came since
                raise Unsupported(f"model '{name.short}' lies in the read-only store {store.root}", param="model")
            before = self._blobs_of(spelled)
            self._known.pop((self._own.root, spelled), None)
            if not self._own.manifests.remove(spelled):
                raise self._missing(name)
            self._own.kept.forget(spelled)
            self._remove_unused(before, stamp)

    def prune(self, *, now: float | None = None) -> tuple[str, ...]:
        """Remove what is left over in the own store: unused blobs, temporary files, downloads. Gives their names.

        Younger than PRUNE_AGE is left alone. Nothing is removed when `no_prune` was said, or when a manifest cannot be
        read: then nobody can tell what is in use.
        """
        if self._no_prune or not self.root.is_dir():
            return ()
        with self._changing:
            used = self._used()
            if used is None or self._own.manifests.has_strays():
                _log.warning("store not pruned: a manifest cannot be read", models=str(self.root))
                return ()
            self._own.blobs.tidy(used.union(*(_readable_digests(store) for store in self._stores[1:])))
            self._own.kept.tidy(self._own.manifests.names())
            now = time.time() if now is None else now
            begun = (name for place in (self.partials, self.uploads) for name in _remove_old(place, now - PARTIAL_AGE))
            return (*self._prune_blobs(used, now - PRUNE_AGE), *begun)

    def _prune_blobs(self, used: frozenset[Digest], before: float) -> tuple[str, ...]:
        names = {name for digest in used for name in (digest.filename, str(digest))}
        removed: list[str] = []
        directory = self.blobs.directory
        with write_errors("pruning the store"):
            files = [path for path in directory.iterdir() if path.is_file()] if directory.is_dir() else []
            notes = [path for path in self.root.iterdir() if is_temporary(path)]
            for path in (*files, *notes, *self._own.manifests.temporary()):
                status = path.lstat()
                # A hard link keeps the old date of the file it came from; its last change of status is the linking.
                if path.name not in names and max(status.st_mtime, status.st_ctime) < before:
                    path.unlink(missing_ok=True)
                    removed.append(path.name)
        removed += _remove_old(self.downloads, before)
        removed += self._prune_unpacked()
        for path in sorted(self._own.manifests.directory.glob("**/"), reverse=True):
            remove_empty(path, up_to=self._own.manifests.directory)
        return tuple(removed)

    def _prune_unpacked(self) -> list[str]:
        """Weights as the cpu engine wanted them before it had a library of its own. Nothing else is so named there."""
        directory, removed = self.root / "unpacked", []
        for path in directory.glob("*.unpacked"):
            with write_errors("pruning the store"):
                path.unlink(missing_ok=True)
            removed.append(path.name)
        remove_empty(directory, up_to=self.root)
        return removed

    def _adopt(self, manifest: Manifest) -> None:
        """Link the blobs of another store into the own one where that costs nothing; else they are used there."""
        for layer in manifest.blobs:
            error = self.blobs.adopt(layer.digest)
            if error is not None:
                _log.info("blob stays in its read-only store", digest=str(layer.digest), reason=str(error))

    def _blobs_of(self, name: Name) -> frozenset[Digest]:
        """Empty when there is no such manifest, or when it cannot be read."""
        if self._own.manifests.stamp(name) is None:
            return frozenset()
        try:
            return frozenset(layer.digest for layer in parse_manifest(self._own.manifests.read(name)).blobs)
        except ModelFileError:
            return frozenset()

    def _used(self) -> frozenset[Digest] | None:
        """Every digest that a manifest of the own store names; None when one cannot be read."""
        try:
            return _digests(self._own)
        except (ModelFileError, StoreError):
            return None

    def _remove_unused(self, candidates: frozenset[Digest], listed: Stamp | None) -> tuple[Digest, ...]:
        """`candidates`: the blobs of a manifest that is gone, which was written when `listed` says.

        One that was stored again since, a moment ago, is somebody's who has not written his manifest yet.
        """
        used = self._used() if candidates and listed else None
        if used is None or listed is None:
            return ()
        used = used.union(*self._held)
        since = max(listed.modified_ns / 1e9, time.time() - CLAIMED_SECONDS)
        unused = tuple(
            digest for digest in sorted(candidates - used, key=str) if not self.blobs.stored_since(digest, since)
        )
        for digest in unused:
            self.blobs.remove(digest)
        return unused

    # -------------------------------------------------------------------------------------------------- resolving

    def _find(self, name: Name) -> FoundManifest:
        found = self._lookup(name)
        if found is None:
            raise self._missing(name)
        return found

    def _lookup(self, name: Name) -> FoundManifest | None:
        return lookup(self._stores, name)

    def _missing(self, name: Name) -> ModelNotFound:
        return ModelNotFound(name.short, near=self.near(name))

    def _stored(self, name: Name) -> Model | None:
        """None when there is no manifest under that Name."""
        return settled(self._stores, name, self._model)

    def _remembered(self, name: Name) -> Model | None:
        """The same without reading a file: None also when one would have to be."""
        found = self._lookup(name)
        if found is None:
            return None
        store, spelled, stamp = found
        known = self._known.get((store.root, spelled))
        return known.model if known is not None and known.holds(stamp) else None

    def _present(self, name: Name, read: Callable[[Store, Name, Stamp], _Value]) -> _Value:
        """What `read` makes of it, as `settled` has it. ModelNotFound."""
        value = settled(self._stores, name, read)
        if value is None:
            raise self._missing(name)
        return value

    def _model(self, store: Store, name: Name, stamp: Stamp) -> Model:
        key = (store.root, name)
        known = self._known.get(key)
        if known is not None and known.holds(stamp):
            return known.model
        model = self._read_model(store, name, stamp)
        with store_errors(f"reading the weights of {name.short}"):
            weights = tuple(Stamp.of(path) for path in model.files)
        self._remember(self._known, key, _Known(stamp, weights, model))
        return model

    def _remember(self, cache: dict[_Key, _Value], key: _Key, value: _Value) -> None:
        """Forgets the oldest when there are too many."""
        with self._remembering:
            while len(cache) >= _REMEMBERED:
                cache.pop(next(iter(cache)))
            cache[key] = value

    def _read_model(self, store: Store, name: Name, stamp: Stamp) -> Model:
        data = store.manifests.read(name)
        manifest = sound(name, data, store.kept.copies(name))
        digest = hashlib.sha256(data).hexdigest()
        reading = Reading(store.blobs, self.header)
        return reading.model(name, manifest, digest, modified=stamp.modified, read_only=store.read_only)

    def _warn(self, path: Path, name: Name, reason: str) -> None:
        stamp = _stamp(path)
        if stamp is not None and self._unreadable.get(path) != stamp:
            self._remember(self._unreadable, path, stamp)
            _log.warning("model left out of the list", model=name.short, reason=reason)


def check_expected(name: Name, manifest: bytes, expected: Digest | None) -> None:
    """DigestMismatch when a source's manifest is not the one that was `expected`; None expects any."""
    if expected is not None and Digest.of(manifest).hex != expected.hex.lower():
        raise DigestMismatch(
            f"what its source has as {name.short} is {Digest.of(manifest)} now, and {expected} was asked for"
        )


def _check(wanted: Reference, digest: str) -> None:
    """`digest`: of the manifest that is under the Name, 64 hex digits."""
    if not wanted.fits(digest):
        raise ModelNotFound(wanted.short, there=f"sha256:{digest}")


def _readable_digests(store: Store) -> frozenset[Digest]:
    """None, when a manifest of it cannot be read."""
    try:
        return _digests(store)
    except (ModelFileError, StoreError):
        return frozenset()


def _digests(store: Store) -> frozenset[Digest]:
    """Every digest that a manifest of the store names. ModelFileError or StoreError when one cannot be read."""
    manifests = [parse_manifest(store.manifests.read(name)) for name in store.manifests.names()]
    return frozenset(layer.digest for manifest in manifests for layer in manifest.blobs)


def _remove_old(parent: Path, before: float) -> list[str]:
    """Directories below in which nothing was written since. Gives their names."""
    removed = []
    for path in parent.iterdir() if parent.is_dir() else ():
        if max(file.lstat().st_mtime for file in (path, *path.rglob("*"))) < before:
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path.name)
    return removed


def _stamp(path: Path) -> Stamp | None:
    try:
        return Stamp.of(path)
    except OSError:
        return None
