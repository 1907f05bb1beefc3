"""Files of this machine become models: linked where that can be, copied where it cannot, for who has read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.gguf_files import CHATML, Tensor, gguf_bytes, write_tiny_llama
from puna.errors import Forbidden, InvalidRequest, ModelFileError, PunaError, Unsupported
from puna.model.digest import Digest
from puna.model.name import Name
from puna.model.shards import ShardName
from puna.sources.file.file import LocalFiles
from puna.sources.source import LocalFile, Terms
from puna.sources.sources import Sources, StoredModel
from puna.store.library import Library
from puna.types import Progress

NAME = Name.parse("local/mine")
WEIGHTS = gguf_bytes(chat_template=CHATML, tensors=[Tensor("a", (64, 8000))])
MMPROJ = gguf_bytes(architecture="clip", tensors=[Tensor("v", (8,))])


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.open(tmp_path / "models")


def terms(*paths: Path, local: bool = True) -> Terms:
    return Terms(local=local, files=tuple(LocalFile(path, Digest.of(path.read_bytes())) for path in paths))


async def pulled(library: Library, wanted: Terms, name: Name = NAME) -> list[Progress]:
    return [step async for step in Sources(library, [LocalFiles()]).pull(name, wanted)]


def written(path: Path, data: bytes = WEIGHTS) -> Path:
    path.write_bytes(data)
    return path


async def test_a_file_is_shared_with_the_store(library: Library, tmp_path: Path) -> None:
    path = written(tmp_path / "m.gguf")
    steps = await pulled(library, terms(path))
    model = library.resolve(NAME)
    assert model.weights.read_bytes() == WEIGHTS
    assert (model.manifest.layers[0].from_, model.chat_template) == ("m.gguf", CHATML)
    statuses = list(dict.fromkeys(step.status for step in steps))
    assert statuses == [
        "pulling manifest",
        "verifying sha256 digest",
        f"pulling {model.weights_digest.short}",
        "writing manifest",
        "success",
    ]
    path.unlink()
    assert library.resolve(NAME).weights.read_bytes() == WEIGHTS
    # What is here needs no file any more, and nothing is read again.
    again = await pulled(library, Terms(local=True, files=(LocalFile(path, Digest.of(WEIGHTS)),)))
    assert not any(step.completed and step.status.startswith("verifying") for step in again)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A file on another file system than the store's."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system that can be written: /dev/shm is none here")
    path = memory / f"puna-test-{os.getpid()}.gguf"
    yield written(path)
    path.unlink(missing_ok=True)


async def test_across_file_systems_it_is_copied_and_told(library: Library, elsewhere: Path) -> None:
    steps = await pulled(library, terms(elsewhere))
    copied = [step for step in steps if step.status == f"copying {elsewhere.name}"]
    assert copied
    assert all(step.total == len(WEIGHTS) for step in copied)
    assert copied[-1].completed == len(WEIGHTS)
    elsewhere.write_bytes(bytes(len(WEIGHTS)))
    assert library.resolve(NAME).weights.read_bytes() == WEIGHTS


async def test_several_files_of_one_model(library: Library, tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "tiny.gguf", shards=3)
    paths = [tmp_path / name for name in ShardName("tiny", 1, 3).all]
    await pulled(library, terms(written(tmp_path / "mmproj.gguf", MMPROJ), *reversed(paths)))
    model = library.resolve(NAME)
    assert [path.read_bytes() for path in model.files] == [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in model.projectors] == [MMPROJ]


async def test_refusals_tell_nothing_of_a_file(library: Library, tmp_path: Path) -> None:
    """Whether it is there, what it is, who may read it."""
    path, digest = written(tmp_path / "m.gguf"), Digest.of(b"not read")
    told = set()
    for wanted in (path, tmp_path / "none.gguf", tmp_path, Path("m.gguf"), Path("/dev/null"), tmp_path / ("x" * 300)):
        with pytest.raises(InvalidRequest) as caught:
            await pulled(library, Terms(local=True, files=(LocalFile(wanted, digest),)))
        told.add((caught.value.message, caught.value.code, caught.value.param))
    assert told == {("a file cannot be taken from where it is: send its bytes", "local_file", "files")}
    assert library.listed() == []


@pytest.mark.parametrize(
    ("wanted", "kind", "words"),
    [
        ([("m.gguf", WEIGHTS), ("n.gguf", WEIGHTS[:-1] + b"x")], Unsupported, "there are several"),
        ([("p.gguf", MMPROJ)], Unsupported, "there are none"),
        ([("m.safetensors", b"x" * 99)], ModelFileError, "'puna create' converts others"),
        ([("cut.gguf", WEIGHTS[:99])], ModelFileError, r"cut\.gguf"),
    ],
)
async def test_what_makes_no_model(
    library: Library, tmp_path: Path, wanted: list[tuple[str, bytes]], kind: type[PunaError], words: str
) -> None:
    paths = [written(tmp_path / name, data) for name, data in wanted]
    with pytest.raises(kind, match=words):
        await pulled(library, terms(*paths))
    assert library.listed() == []


async def test_only_for_programs_of_this_machine(library: Library, tmp_path: Path) -> None:
    path = written(tmp_path / "m.gguf")
    with pytest.raises(Forbidden):
        await pulled(library, terms(path, local=False))
    with pytest.raises(Unsupported, match="puna export"):
        Sources(library, [LocalFiles()]).push(NAME, terms(path))


async def test_it_is_nobody_elses_to_renew(library: Library, tmp_path: Path) -> None:
    """The name is a registry's too; the model is not."""

    class Elsewhere(LocalFiles):
        title = "registries"

        def takes(self, name: Name, terms: Terms) -> bool:
            return True

    sources = Sources(library, [LocalFiles(), Elsewhere()])
    async for _ in sources.pull(NAME, terms(written(tmp_path / "m.gguf"))):
        pass
    digest = Digest(library.resolve(NAME).digest)
    (found,) = await sources.freshness([StoredModel(NAME, digest)], Terms(local=True))
    assert (found.state, found.source) == ("own", LocalFiles.title)
