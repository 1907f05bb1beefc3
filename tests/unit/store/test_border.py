"""Whatever a name, a digest, a manifest or a header says, nothing is ever written outside of the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.gguf_files import CHATML, write_gguf
from puna.create import CreateRequest, check_request
from puna.errors import PunaError
from puna.model.digest import Digest
from puna.model.gguf import read_header
from puna.model.manifest import CONFIG_TYPE, MODEL_TYPE, Config, Layer, Manifest, parse_manifest
from puna.model.name import Name
from puna.store.blobs import Blobs
from puna.store.checkup import Checkup
from puna.store.library import Library

RUNS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

pieces = st.sampled_from(
    [
        "..",
        ".",
        "/",
        "//",
        "\\",
        ":",
        "@",
        "a",
        "A",
        "~",
        "%2e%2e",
        "\0",
        "\n",
        " ",
        "é",
        "-",
        "_",
        "sha256:",
        "con",
        "x" * 90,
    ]
)
paths = st.lists(pieces, max_size=8).map("".join)
hexes = st.text("0123456789abcdefABCDEF", min_size=62, max_size=66)
digests = st.one_of(
    paths,
    st.builds("sha256{}{}".format, st.sampled_from([":", "-", "/", ":../"]), hexes),
    st.builds("{}sha256:{}".format, paths, hexes),
)


class Yard:
    """A store in a directory with neighbours, none of which may change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.models = root / "deep" / "models"
        for place in (root / "a", root / "deep" / "a", root / "deep" / "blobs" / "a"):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"neighbour")
        self._before = dict(self._outside())

    def check(self) -> None:
        assert dict(self._outside()) == self._before

    def inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.models.resolve())

    def _outside(self) -> Iterator[tuple[str, bytes]]:
        for path in self.root.rglob("*"):
            if not path.is_relative_to(self.models):
                yield str(path), path.read_bytes() if path.is_file() else b""


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def work_on(library: Library, name: Name) -> None:
    """All that can be asked for under a Name."""
    for ask in (library.resolve, library.stored, library.delete, library.spelled, library.digests):
        with suppress(PunaError):
            ask(name)
    with suppress(PunaError):
        Checkup(library).of(name, lambda _: None)
    with suppress(PunaError):
        library.copy(name, name)


@RUNS
@given(paths)
def test_names(yard: Yard, text: str) -> None:
    library = Library.open(yard.models)
    config = library.blobs.add_layer(CONFIG_TYPE, Config().dump())
    with suppress(PunaError):
        name = Name.parse(text)
        library.write_manifest(name, Manifest(config, ()))
        path = yard.models.joinpath("manifests", *name.parts)
        assert yard.inside(path)
        assert len(path.relative_to(yard.models / "manifests").parts) == 4
        assert path.is_file()
        work_on(library, name)
    yard.check()


@RUNS
@given(paths, paths, paths, paths)
def test_names_in_parts(yard: Yard, host: str, namespace: str, model: str, tag: str) -> None:
    with suppress(PunaError):
        name = Name.of(host, namespace, model, tag)
        library = Library.open(yard.models)
        library.write_manifest(name, Manifest(library.blobs.add_layer(CONFIG_TYPE, b"{}"), ()))
        work_on(library, name)
    yard.check()


@RUNS
@given(digests)
def test_digests(yard: Yard, text: str) -> None:
    blobs = Blobs(yard.models / "blobs")
    with suppress(PunaError):
        digest = Digest.parse(text)
        assert yard.inside(blobs.path(digest))
        assert blobs.path(digest).parent == blobs.directory
        blobs.fault(digest)
        blobs.claim(digest)
        blobs.adopt(digest)
        blobs.remove(digest)
        with suppress(PunaError), blobs.writer(digest) as writer:
            writer.write(b"x")
    yard.check()


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1, 1 << 64), paths, digests),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(paths, inner, max_size=3),
    max_leaves=8,
)
layers = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": st.sampled_from([MODEL_TYPE, CONFIG_TYPE, "x"]) | paths,
        "digest": digests,
        "size": st.integers(-1, 10) | json_values,
        "from": paths,
        "name": paths,
    },
)
manifests = st.fixed_dictionaries({"config": layers, "layers": st.lists(layers, max_size=3)}) | json_values


@RUNS
@given(manifests)
def test_manifests(yard: Yard, shape: object) -> None:
    """Written by another program, or brought by a source."""
    library, name = Library.open(yard.models), Name.parse("m")
    data = json.dumps(shape).encode()
    path = yard.models.joinpath("manifests", *name.parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    with suppress(PunaError):
        for layer in parse_manifest(data).blobs:
            assert yard.inside(library.blobs.path(layer.digest))
            library.intact(layer)
    with suppress(PunaError):
        library.write_manifest(Name.parse("n"), data)
    library.listed()
    library.prune(now=1e12)
    work_on(library, name)
    yard.check()


@RUNS
@given(st.dictionaries(paths, digests, max_size=2), st.dictionaries(paths, digests, max_size=1))
def test_files_of_a_creation(files: dict[str, str], adapters: dict[str, str]) -> None:
    with suppress(PunaError):
        # Without a template nothing is asked of a cage.
        check_request(CreateRequest(name=Name.parse("m"), files=files, adapters=adapters), None)  # type: ignore[arg-type]
        for text in (*files, *adapters):
            assert not Path(text).is_absolute()
            assert ".." not in Path(text).parts


@RUNS
@given(paths, paths, paths)
def test_headers(yard: Yard, name: str, template: str, kind: str) -> None:
    """What a file calls itself is shown, and is never a path."""
    library = Library.open(yard.models)
    path = write_gguf(
        yard.root / "a", metadata={"general.name": name, "general.type": kind, "x": template}, chat_template=CHATML
    )
    with suppress(PunaError):
        header = read_header(path)
        digest = library.blobs.add_file(path)
        config = library.blobs.add_layer(CONFIG_TYPE, Config().dump())
        layer = Layer(MODEL_TYPE, digest, header.size, name or None, kind or None)
        library.write_manifest(Name.parse("m"), Manifest(config, (layer,)))
        work_on(library, Name.parse("m"))
    path.write_bytes(b"neighbour")
    yard.check()
