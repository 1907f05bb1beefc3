"""`quantize`: by a program of llama.cpp's name on the PATH. Here one that stands in for it, and writes another file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.gguf_files import Tensor, gguf_bytes, write_tiny_llama
from fakes.stores import put_blob, put_model
from puna.convert import quantize
from puna.create import CreateRequest, create
from puna.errors import InvalidRequest, ModelFileError, Overloaded, PunaError, Unsupported
from puna.model.ggml import TensorType
from puna.model.name import Name
from puna.sources.sources import Sources
from puna.store.library import Library
from puna.template.cage import Cage

NEW = Name.parse("new")
CAGE = Cage()


@pytest.fixture
def library(tmp_path: Path) -> Library:
    put_model(
        tmp_path / "models", "base/latest", gguf_bytes(tensors=[Tensor("a", (64,), TensorType.F16)]), {"system": b"Hi."}
    )
    return Library.open(tmp_path / "models")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "made.gguf"
    made.write_bytes(gguf_bytes(metadata={"general.file_type": 15}, tensors=[Tensor("a", (64,), TensorType.Q8_0)]))
    path = tmp_path / "bin" / "llama-quantize"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\n[ "$3" = Q4_K_M ] || {{ echo "no such type"; exit 1; }}\nexec cp {made} "$2"\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    return path


async def made(library: Library, **arguments: object) -> list[str]:
    request = CreateRequest(name=NEW, **arguments)  # type: ignore[arg-type]
    return [step.status async for step in create(request, library, Sources(library, []), CAGE)]


@pytest.mark.usefixtures("program")
async def test_the_weights_are_new_and_the_rest_stays(library: Library) -> None:
    steps = await made(library, from_="base", quantize="q4_k")
    model = library.resolve(NEW)
    assert (model.header.quantization, model.config.file_type, model.system) == ("Q4_K_M", "Q4_K_M", "Hi.")
    assert "quantizing F16 model to Q4_K_M" in steps
    assert await made(library, from_="new", quantize="Q4_K_M", system="Again.")
    assert library.resolve(NEW).weights_digest == model.weights_digest
    assert list(library.downloads.iterdir()) == []


@pytest.mark.usefixtures("program")
async def test_what_cannot_be_is_refused(library: Library, tmp_path: Path) -> None:
    first = write_tiny_llama(tmp_path / "two.gguf", shards=2)
    files = {path.name: str(put_blob(library.root, path.read_bytes())) for path in first.parent.glob("two-*.gguf")}
    small = str(put_blob(library.root, gguf_bytes(tensors=[Tensor("a", (64,), TensorType.Q8_0)])))
    cases: list[tuple[dict[str, object], type[PunaError], str]] = [
        ({"from_": "base", "quantize": "Q9"}, InvalidRequest, "unsupported quantization type Q9"),
        ({"from_": "base", "quantize": "Q8_0"}, ModelFileError, "llama-quantize failed: no such type"),
        ({"files": {"s.gguf": small}, "quantize": "Q4_K_M"}, Unsupported, "only supported for F16, BF16 and F32"),
        ({"files": files, "quantize": "Q4_K_M"}, Unsupported, "several files"),
    ]
    for arguments, kind, words in cases:
        with pytest.raises(kind, match=words):
            await made(library, **arguments)
    assert not library.has(NEW)


async def test_a_program_that_is_stopped_ends_its_request(
    library: Library, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "LOCAL_SECONDS", 0.3)
    program.write_text("#!/bin/sh\nkill -STOP $$\n")
    with pytest.raises(Overloaded, match="did not let llama-quantize run"):
        await made(library, from_="base", quantize="Q4_K_M")
    assert not library.has(NEW)


async def test_without_the_program_it_is_refused_by_name(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unsupported, match="llama-quantize, which is not on the server's PATH") as caught:
        await made(library, from_="base", quantize="Q4_K_M")
    assert caught.value.param == "quantize"
