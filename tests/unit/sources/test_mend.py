"""Damage of any file of a model: told by its name, refused at a load, brought back alone. No model becomes another."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.gguf_files import write_tiny_llama
from fakes.shelf import Shelf
from puna.errors import ModelDamaged, StoreError
from puna.model.manifest import (
    CONFIG_TYPE,
    LICENSE_TYPE,
    MESSAGES_TYPE,
    MODEL_TYPE,
    PARAMS_TYPE,
    SYSTEM_TYPE,
    TEMPLATE_TYPE,
    Config,
    Layer,
    Manifest,
)
from puna.model.name import Name
from puna.sources.mend import DamageReport, verify
from puna.sources.sources import Sources
from puna.store.library import Library
from puna.types import Progress

NAME, OTHER, OWN = Name.parse("library/model"), Name.parse("other/model"), Name.parse("my-own")
TYPES = (MODEL_TYPE, TEMPLATE_TYPE, PARAMS_TYPE, SYSTEM_TYPE, MESSAGES_TYPE, LICENSE_TYPE, CONFIG_TYPE)
TEXTS = {
    TEMPLATE_TYPE: b"{{ .System }}{{ .Prompt }}",
    PARAMS_TYPE: b'{"temperature": 0.5}',
    SYSTEM_TYPE: b"Be brief.",
    MESSAGES_TYPE: b'[{"role": "user", "content": "Hi"}]',
    LICENSE_TYPE: b"MIT",
}


def fill(library: Library, weights: Path, name: Name, *, system: bytes = TEXTS[SYSTEM_TYPE], from_: str = "") -> None:
    layers = [Layer(MODEL_TYPE, library.blobs.add_bytes(weights.read_bytes()), weights.stat().st_size, from_ or None)]
    texts = TEXTS | {SYSTEM_TYPE: system}
    layers += [library.blobs.add_layer(kind, data) for kind, data in texts.items()]
    config = library.blobs.add_layer(CONFIG_TYPE, Config(model_family="llama").dump())
    library.write_manifest(name, Manifest(config, tuple(layers)))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("weights") / "tiny.gguf")


@pytest.fixture
def shelf(tmp_path: Path, weights: Path) -> Shelf:
    stock = Library.open(tmp_path / "shelf")
    for name in (NAME, OTHER):
        fill(stock, weights, name)
    return Shelf(stock)


@pytest.fixture
def library(tmp_path: Path, weights: Path) -> Library:
    library = Library.open(tmp_path / "models")
    for name in (NAME, OTHER):
        fill(library, weights, name)
    return library


async def checked(library: Library, shelf: Shelf, *names: Name, repair: bool = False) -> list[DamageReport]:
    steps = verify(names or library.names(), library, Sources(library, [shelf]), repair=repair)
    return [step async for step in steps if isinstance(step, DamageReport)]


def load(library: Library, name: Name = NAME) -> None:
    library.verify(library.resolve(name))


def flipped(data: bytes, source: random.Random) -> bytes:
    at = source.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << source.randrange(8)]) + data[at + 1 :]


def zeroed(data: bytes, source: random.Random) -> bytes:
    """Some pages of it, as a crash of the system leaves them; all of what is smaller than a page."""
    begin = source.randrange(0, max(1, len(data) - 4096), 4096)
    return data[:begin] + bytes(min(4096, len(data) - begin)) + data[begin + 4096 :]


def truncated(data: bytes, source: random.Random) -> bytes:
    return data[: source.randrange(len(data))]


def missing(data: bytes, source: random.Random) -> None:
    return None


DAMAGE: tuple[Callable[[bytes, random.Random], bytes | None], ...] = (flipped, zeroed, truncated, missing)


def damage(path: Path, how: Callable[[bytes, random.Random], bytes | None], source: random.Random) -> None:
    data = how(path.read_bytes(), source)
    if data is None:
        path.unlink()
    else:
        with path.open("r+b") as file:  # in place: what a disk does
            file.write(data)
            file.truncate(len(data))
        os.utime(path, ns=(1, source.randrange(1 << 40)))


@pytest.mark.parametrize("trial", range(50))
async def test_fifty_of_fifty(library: Library, shelf: Shelf, trial: int) -> None:
    """A flipped, zeroed, truncated or missing byte in any blob: named, refused at a load, mended alone."""
    source, how, kind = random.Random(trial), DAMAGE[trial % 4], [*TYPES, None][trial // 4 % 8]
    if kind is None and how is missing:
        how = flipped  # a model without a manifest is none
    load(library)
    manifest = library.resolve(NAME).manifest
    layer = next((layer for layer in manifest.blobs if layer.media_type == kind), None)
    path = library.blobs.path(layer.digest) if layer else library.root.joinpath("manifests", *NAME.parts)
    whole = path.read_bytes()
    damage(path, how, source)

    (told,) = await checked(library, shelf, NAME)
    expected = {flipped: {"changed"}, zeroed: {"zeroed"}, truncated: {"truncated"}, missing: {"missing"}}[how]
    assert told.damage.fault.kind in expected | ({"changed", "truncated"} if layer is None else set())
    assert told.damage.layer == layer
    assert "model 'model:latest'" in told.damage.words
    with pytest.raises((ModelDamaged, StoreError), match=r"puna verify model:latest --repair"):
        load(library)

    (mended,) = await checked(library, shelf, NAME, repair=True)
    assert (mended.mended, mended.reason) == (True, "")
    assert shelf.brought == ([layer.digest] if layer else [])
    assert path.read_bytes() == whole
    assert await checked(library, shelf) == []
    load(library)


async def test_a_pull_mends_what_is_damaged_and_nothing_else(library: Library, shelf: Shelf) -> None:
    layer = library.resolve(NAME).manifest.of_type(MODEL_TYPE)[0]
    damage(library.blobs.path(layer.digest), flipped, random.Random(1))
    async for _ in Sources(library, [shelf]).pull(NAME):
        pass
    assert shelf.brought == [layer.digest]
    load(library)


async def test_several_models_and_files(library: Library, shelf: Shelf) -> None:
    manifest = library.resolve(NAME).manifest
    for layer in manifest.blobs[:2]:
        damage(library.blobs.path(layer.digest), truncated, random.Random(3))
    told = await checked(library, shelf)
    assert [(report.damage.name, report.damage.layer) for report in told] == [
        (name, layer) for name in (NAME, OTHER) for layer in manifest.blobs[:2]
    ]
    # Both have the same blobs: once they are mended for the first, nothing is left to do for the second.
    assert [report.mended for report in await checked(library, shelf, repair=True)] == [True, True]
    assert shelf.brought == [layer.digest for layer in manifest.blobs[:2]]


async def test_a_model_of_ones_own_is_mended_from_what_it_was_made_of(
    library: Library, shelf: Shelf, weights: Path
) -> None:
    for name in (NAME, OTHER):
        library.delete(name)
    fill(library, weights, OWN, system=b"Mine.", from_="other/model:latest")
    model = library.resolve(OWN)
    damage(model.weights, zeroed, random.Random(5))
    damage(library.blobs.path(model.manifest.of_type(SYSTEM_TYPE)[0].digest), flipped, random.Random(5))
    reports = await checked(library, shelf, OWN, repair=True)
    assert [(report.damage.fault.kind, report.mended) for report in reports] == [("zeroed", True), ("changed", False)]
    assert "the shelf has no my-own:latest" in reports[1].reason
    assert library.names() == [OWN], "what was pulled for it is not listed"


@pytest.mark.parametrize("tells", [True, False])
async def test_a_newer_version_does_not_take_the_place_of_what_is_stored(
    library: Library, shelf: Shelf, weights: Path, tells: bool
) -> None:
    library.delete(OTHER)
    shelf.tells = tells
    fill(shelf.stock, weights, NAME, system=b"A newer one.")
    before = library.manifest_bytes(NAME)
    system = library.resolve(NAME).manifest.of_type(SYSTEM_TYPE)[0].digest
    damage(library.blobs.path(system), missing, random.Random(1))
    (report,) = await checked(library, shelf, NAME, repair=True)
    assert not report.mended
    assert "has another 'model:latest' now: 'puna pull model:latest' takes it" in report.reason
    assert library.manifest_bytes(NAME) == before
    assert [layer.digest for layer in library_blobs(before) if not library.blobs.has(layer.digest)] == [system]


def library_blobs(data: bytes) -> tuple[Layer, ...]:
    from puna.model.manifest import parse_manifest

    return parse_manifest(data).blobs


async def test_what_is_no_model_ends_no_checkup(library: Library, shelf: Shelf) -> None:
    """A pipe and a link to nowhere beside the manifests; and a model that is deleted while others are read."""
    tags = library.root.joinpath("manifests", *NAME.parts).parent
    os.mkfifo(tags / "pipe")
    (tags / "link").symlink_to(tags / "nowhere")
    assert library.names() == [NAME, OTHER]
    steps = verify([NAME, Name.parse("gone"), OTHER], library, Sources(library, [shelf]), repair=True)
    told = [step.status for step in [step async for step in steps] if isinstance(step, Progress)]
    assert "passing over gone:latest: it is not there any more" in told
    assert told.index("verifying other/model:latest") > told.index("verifying gone:latest")


async def test_a_manifest_that_another_program_wrote_is_no_damage(library: Library, shelf: Shelf) -> None:
    path = library.root.joinpath("manifests", *NAME.parts)
    manifest = library.resolve(NAME).manifest
    system = library.blobs.add_layer(SYSTEM_TYPE, b"Another.")
    layers = tuple(system if layer.media_type == SYSTEM_TYPE else layer for layer in manifest.layers)
    path.write_bytes(replace(manifest, layers=layers).dump())
    assert await checked(library, shelf) == []
    assert library.resolve(NAME).system == "Another."


async def test_left_in_the_middle_the_work_stops(library: Library, shelf: Shelf) -> None:
    steps = verify(library.names(), library, Sources(library, [shelf]), repair=False)
    await anext(steps)
    await anext(steps)
    await asyncio.wait_for(steps.aclose(), 30)
