"""Directories as they are published become GGUF files: what is written, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes.gguf_files import CHATML, byte_tokens, write_tiny_llama
from fakes.published import HEAD, HEADS, WIDTH, write_decoder, write_safetensors
from puna.convert import launch
from puna.convert.launch import to_gguf
from puna.errors import Cancelled, ModelFileError, Overloaded, PunaError, Unsupported
from puna.model.ggml import TensorType
from puna.model.gguf import Header, read_header
from puna.types import Progress


@pytest.fixture
def published(tmp_path: Path) -> Path:
    directory = tmp_path / "published-by-others"
    directory.mkdir()
    return directory


def converted(directory: Path, tmp_path: Path, report: Callable[[Progress], None] = lambda _: None) -> Path:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    return to_gguf(files, scratch, "Tiny", report)


def numbers(path: Path, header: Header, name: str) -> NDArray[np.float32]:
    (tensor,) = [one for one in header.tensors if one.name == name]
    raw = path.read_bytes()[tensor.offset : tensor.offset + tensor.size]
    kind = {TensorType.F32: np.float32, TensorType.F16: np.float16}[tensor.type]
    return np.frombuffer(raw, kind).astype(np.float32).reshape(tuple(reversed(tensor.shape)))


def test_a_llama_is_what_its_directory_says(published: Path, tmp_path: Path) -> None:
    tensors = write_decoder(published)
    steps: list[Progress] = []
    path = converted(published, tmp_path, steps.append)
    header = read_header(path, arrays=True)
    like = read_header(write_tiny_llama(tmp_path / "like.gguf", head=32), arrays=True)
    assert {one.name for one in header.tensors} == {one.name for one in like.tensors} | {"output.weight"}
    for key, value in like.metadata.items():
        if key not in {"general.name", "general.file_type", "tokenizer.ggml.unknown_token_id"} and "padding" not in key:
            assert header.metadata[key] == value, key
    assert (header.quantization, header.chat_template) == ("F16", CHATML)
    assert header.metadata["tokenizer.ggml.tokens"] == tuple(byte_tokens())
    given = tensors["model.layers.1.self_attn.q_proj.weight"]
    found = numbers(path, header, "blk.1.attn_q.weight")
    for head in range(HEADS):
        for pair in range(HEAD // 2):
            for half in range(2):
                row = given[head * HEAD + half * HEAD // 2 + pair].astype(np.float16)
                assert (found[head * HEAD + 2 * pair + half] == row.astype(np.float32)).all()
    assert (numbers(path, header, "output_norm.weight") == np.ones(WIDTH)).all()
    assert [steps[0].status, steps[-1].completed] == ["converting model", steps[-1].total]


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_the_plain_families(published: Path, tmp_path: Path, kind: str) -> None:
    tensors = write_decoder(published, kind, dtype="BF16")
    header = read_header(converted(published, tmp_path))
    assert (header.architecture, header.quantization, header.head_count_kv) == (kind, "BF16", 2)
    assert len(header.tensors) == len(tensors)


def test_tied_heads_and_slowed_waves(published: Path, tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}
    write_decoder(published, tie_word_embeddings=True, rope_scaling=scaling)
    path = converted(published, tmp_path)
    header = read_header(path)
    assert "output.weight" not in {one.name for one in header.tensors}
    factors = numbers(path, header, "rope_freqs.weight")
    assert (factors[0], factors[-1]) == (1.0, 8.0)
    assert (np.diff(factors) >= 0).all()


def rewritten(directory: Path, file: str, **changes: object) -> None:
    path = directory / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_not_converted_is_refused_by_name(published: Path, tmp_path: Path) -> None:
    tensors = write_decoder(published)
    cases: list[tuple[Callable[[], object], type[PunaError], str]] = [
        (lambda: rewritten(published, "config.json", model_type="mamba"), Unsupported, "kind 'mamba' are not"),
        (
            lambda: rewritten(published, "config.json", model_type="bert", architectures=["BertForMaskedLM"]),
            Unsupported,
            "BertForMaskedLM is not converted by Puna: of BERT, encoders without a head are",
        ),
        (lambda: rewritten(published, "config.json", model_type=""), ModelFileError, "does not say of what kind"),
        ((published / "config.json").unlink, ModelFileError, "config.json is missing beside"),
        (lambda: rewritten(published, "config.json", rope_scaling={"type": "yarn"}), Unsupported, "'yarn'"),
        (lambda: rewritten(published, "config.json", hidden_size="x"), ModelFileError, 'hidden_size is no count: "x"'),
        (lambda: (published / "config.json").write_text("{"), ModelFileError, "config.json is not JSON"),
        (lambda: rewritten(published, "tokenizer.json", pre_tokenizer={}), Unsupported, "tokenizer is none that Puna"),
        ((published / "tokenizer.json").unlink, Unsupported, "a tokenizer.json is needed"),
        (
            lambda: write_safetensors(published / "more.safetensors", {"model.extra": tensors["model.norm.weight"]}),
            Unsupported,
            "tensor 'model.extra' is none",
        ),
        (lambda: (published / "more.safetensors").write_bytes(b"x" * 40), ModelFileError, "not a safetensors file"),
    ]
    for spoil, kind, words in cases:
        write_decoder(published)
        (published / "more.safetensors").unlink(missing_ok=True)
        spoil()
        with pytest.raises(kind, match=words) as caught:
            converted(published, _fresh(tmp_path))
        if kind is Unsupported:
            assert "pip install 'puna[convert]'" in caught.value.message


def _fresh(tmp_path: Path) -> Path:
    number = sum(1 for _ in tmp_path.glob("case*"))
    directory = tmp_path / f"case{number}"
    directory.mkdir()
    return directory


def test_what_is_stopped_leaves_no_process(published: Path, tmp_path: Path) -> None:
    write_decoder(published)

    def report(progress: Progress) -> None:
        if progress.completed:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        converted(published, tmp_path, report)


def test_a_converter_that_is_stopped_ends_its_request(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    monkeypatch.setattr(launch, "python", lambda *_: [sys.executable, "-S", "-c", stops])
    monkeypatch.setattr(launch, "LOCAL_SECONDS", 0.3)
    with pytest.raises(Overloaded, match="did not let the process that converts files run"):
        converted(published, tmp_path)


def test_llama_cpps_converter_takes_the_others_where_it_is(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_decoder(published, "mamba")
    whole = write_tiny_llama(tmp_path / "whole.gguf")
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "convert_hf_to_gguf.py").write_text(
        f"import shutil, sys\nassert sys.argv[2] == '--outfile'\nshutil.copy({str(whole)!r}, sys.argv[3])\n"
    )
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.setenv("PYTHONPATH", str(modules))
    steps: list[Progress] = []
    assert converted(published, tmp_path, steps.append).read_bytes() == whole.read_bytes()
    assert any("llama.cpp's converter" in step.status for step in steps)
    (modules / "convert_hf_to_gguf.py").write_text("raise SystemExit('no such model')\n")
    with pytest.raises(ModelFileError, match="could not be converted: no such model"):
        converted(published, _fresh(tmp_path))
