"""A safetensors adapter of PEFT's, created into a model: llama.cpp answers as it does with the weights merged."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.published import write_adapter, write_decoder, write_safetensors
from puna.create import CreateRequest, create
from puna.engine.llama.engine import LlamaEngine
from puna.engine.runner import LoadOptions, ModelFiles, Prompt, Sampling, Token
from puna.model.model import Model
from puna.model.name import Name
from puna.settings import Settings
from puna.sources.packages.packages import Packages
from puna.sources.sources import Sources
from puna.store.library import Library
from puna.template.cage import Cage


async def made(library: Library, name: str, files: Path | None = None, **arguments: object) -> Model:
    if files is not None:
        arguments["files"] = blobs(library, files)
    request = CreateRequest(name=Name.parse(name), **arguments)  # type: ignore[arg-type]
    with Cage() as cage:
        async for _ in create(request, library, Sources(library, [Packages()]), cage):
            pass
    return library.resolve(request.name)


def blobs(library: Library, directory: Path) -> dict[str, str]:
    return {path.name: str(library.blobs.add_file(path)) for path in sorted(directory.iterdir()) if path.is_file()}


async def odds(model: Model) -> dict[int, float]:
    """Log-probabilities of what may come first."""
    files = ModelFiles(model.weights, "", "", "", adapters=model.adapters)
    runner = await LlamaEngine(Settings(models=Path("none"))).start(files, LoadOptions(num_ctx=256, slots=1))
    try:
        prompt = Prompt(tuple(await runner.tokenize("the thing", special=True, bos=False)))
        sampling = Sampling(max_tokens=1, temperature=0.0, seed=1, logprobs=20)
        steps = [step async for step in runner.generate(prompt, sampling)]
        (token,) = [step for step in steps if isinstance(step, Token)]
        return {candidate.token: candidate.logprob for candidate in token.top}
    finally:
        await runner.close()


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
async def test_an_adapter_answers_as_merged_weights(tmp_path: Path, kind: str) -> None:
    library = Library.open(tmp_path / "models")
    published, lora = tmp_path / "published", tmp_path / "lora"
    published.mkdir()
    tensors = write_decoder(published, kind)
    merged = write_adapter(lora, tensors)
    plain = await made(library, "plain", published)
    adapted = await made(library, "adapted", from_="plain", adapters=blobs(library, lora))
    for path in published.glob("*.safetensors"):
        path.unlink()
    write_safetensors(published / "model.safetensors", merged)
    whole = await made(library, "whole", published)
    assert (len(adapted.adapters), adapted.weights) == (1, plain.weights)
    found, wanted, before = await odds(adapted), await odds(whole), await odds(plain)
    shared = found.keys() & wanted.keys()
    assert len(shared) >= 15
    assert max(abs(found[token] - wanted[token]) for token in shared) < 0.02
    assert max(abs(before[token] - wanted[token]) for token in before.keys() & wanted.keys()) > 0.1
