"""A projector's tensors among the model's own: the text part runs where it can, and the rest is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ollama
import pytest

from fakes.gguf_files import Tensor, write_tiny_llama
from fakes.projectors import plain

from .conftest import Program, serve


@pytest.fixture(scope="module", params=["auto", "llama"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    directory = tmp_path_factory.mktemp("mixed")
    inside = [Tensor("v.blk.0.attn_q.weight", (32, 32)), Tensor("mm.0.weight", (32, 32))]
    write_tiny_llama(directory / "mixed.gguf", head=32, metadata={"llama.vision.block_count": 1}, more_tensors=inside)
    (directory / "Modelfile").write_text("FROM ./mixed.gguf\n")
    with serve(directory / "models", directory / "log", PUNA_ENGINE=request.param) as running:
        made = running.command("create", "mixed", "-f", str(directory / "Modelfile"))
        assert made.returncode == 0, made.stderr
        yield running


def test_the_text_part_runs_and_images_are_refused(program: Program) -> None:
    shown = program.command("show", "mixed").stdout
    assert "its projector lies in the file of its weights" in " ".join(shown.split())
    assert "vision" not in shown.partition("Capabilities")[2]
    message: dict[str, Any] = {"role": "user", "content": "Hi"}
    with ollama.Client(program.url) as client:
        if "PUNA_ENGINE" in program.environment and program.environment["PUNA_ENGINE"] == "llama":
            with pytest.raises(ollama.ResponseError, match="loads no file that holds its projector's tensors"):
                client.chat("mixed", [message], options={"num_predict": 2})
        else:
            assert client.chat("mixed", [message], options={"num_predict": 2}).done
        with pytest.raises(ollama.ResponseError, match="does not support images: its projector lies in"):
            client.chat("mixed", [message | {"images": [plain((255, 0, 0))]}])
