"""LoRA as PEFT writes it becomes a GGUF that adds to a model what PEFT would have added."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.gguf_files import Tensor, gguf_bytes
from fakes.published import Numbers, write_adapter, write_decoder, write_safetensors
from puna.convert.launch import adapter_to_gguf, to_gguf
from puna.errors import ModelFileError, PunaError, Unsupported
from puna.model.adapters import check_fits
from puna.model.ggml import TensorType
from puna.model.gguf import Header, read_header


def files(directory: Path) -> dict[str, Path]:
    return {path.name: path for path in directory.iterdir() if path.is_file()}


def scratch(tmp_path: Path) -> Path:
    directory = tmp_path / f"scratch{sum(1 for _ in tmp_path.glob('scratch*'))}"
    directory.mkdir()
    return directory


def numbers(path: Path, header: Header, name: str) -> Numbers:
    (tensor,) = [one for one in header.tensors if one.name == name]
    raw = path.read_bytes()[tensor.offset : tensor.offset + tensor.size]
    kind = {TensorType.F32: np.float32, TensorType.F16: np.float16}[tensor.type]
    return np.frombuffer(raw, kind).astype(np.float32).reshape(tuple(reversed(tensor.shape)))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    directory = tmp_path / "published"
    directory.mkdir()
    return directory


SCALES: dict[str, dict[str, Any]] = {
    "plain": {},
    "root": {"use_rslora": True},
    "own": {"alpha_pattern": {"self_attn.q_proj": 2.0, "layers.1.mlp.up_proj": 9.0}},
}


@pytest.mark.parametrize(
    ("kind", "scale"), [("llama", "plain"), ("qwen2", "plain"), ("qwen3", "root"), ("llama", "own")]
)
def test_it_adds_what_peft_would(published: Path, tmp_path: Path, kind: str, scale: str) -> None:
    """The model with merged weights is converted for comparison: rows are in llama.cpp's order there."""
    tensors = write_decoder(published, kind)
    merged = write_adapter(tmp_path / "lora", tensors, **SCALES[scale])
    base = to_gguf(files(published), scratch(tmp_path), "Base", lambda _: None)
    header = read_header(base)
    made = adapter_to_gguf(files(tmp_path / "lora"), scratch(tmp_path), header, lambda _: None)
    adapter = read_header(made)
    assert (adapter.kind, adapter.architecture, adapter.metadata["adapter.type"]) == ("adapter", kind, "lora")
    check_fits(adapter, header, "it")
    for path in published.glob("*.safetensors"):
        path.unlink()
    write_safetensors(published / "model.safetensors", merged)
    whole = to_gguf(files(published), scratch(tmp_path), "Base", lambda _: None)
    whole_header = read_header(whole)
    alpha = adapter.metadata["adapter.lora.alpha"]
    assert isinstance(alpha, float)
    changed = [one.name.removesuffix(".lora_a") for one in adapter.tensors if one.name.endswith(".lora_a")]
    assert len(changed) == 14
    for name in changed:
        down, up = numbers(made, adapter, f"{name}.lora_a"), numbers(made, adapter, f"{name}.lora_b")
        found = numbers(base, header, name) + alpha / down.shape[0] * (up @ down)
        wanted = numbers(whole, whole_header, name)
        assert np.abs(wanted - numbers(base, header, name)).max() > 0.3
        np.testing.assert_allclose(found, wanted, atol=4e-3)


def test_what_is_not_converted_is_refused_by_name(published: Path, tmp_path: Path) -> None:
    tensors = write_decoder(published)
    base = read_header(to_gguf(files(published), scratch(tmp_path), "Base", lambda _: None))
    lora = tmp_path / "lora"
    write_adapter(lora, tensors)
    config, weights = lora / "adapter_config.json", lora / "adapter_model.safetensors"

    def said(**changes: object) -> Callable[[], object]:
        return lambda: config.write_text(json.dumps(json.loads(config.read_text()) | changes))

    def also(name: str, *shape: int) -> Callable[[], object]:
        return lambda: write_safetensors(lora / "adapter_more.safetensors", {name: np.ones(shape, np.float32)})

    at = "base_model.model.model.layers.0.self_attn.q_proj"
    cases: list[tuple[Callable[[], object], type[PunaError], str]] = [
        (said(peft_type="LOHA"), Unsupported, "of the kind 'LOHA'"),
        (said(use_dora=True), Unsupported, "use_dora"),
        (said(bias="all"), Unsupported, "biases"),
        (said(modules_to_save=["lm_head"]), Unsupported, "modules_to_save"),
        (said(lora_alpha=0), ModelFileError, "lora_alpha is 0"),
        (said(lora_alpha="x"), ModelFileError, "lora_alpha is no number"),
        (said(alpha_pattern={"none": 3}), Unsupported, "alpha_pattern 'none' names no module"),
        (config.unlink, Unsupported, r"adapter_config\.json is needed"),
        (lambda: weights.write_bytes(b"x" * 40), ModelFileError, "not a safetensors file"),
        (also(f"{at}.lora_magnitude_vector", 4), Unsupported, "lora_magnitude_vector' is none"),
        (also("base_model.model.model.embed_tokens.lora_embedding_A", 4, 4), Unsupported, "is none"),
        (also("base_model.model.model.layers.0.input_layernorm.lora_A.weight", 4, 4), Unsupported, "is none"),
        (also("base_model.model.lm_head.lora_A.weight", 4, 32), ModelFileError, "one of two matrices for output"),
        (also(f"{at}.lora_A.default.weight", 4, 32), ModelFileError, "changes blk.0.attn_q.weight twice"),
    ]
    for spoil, kind, words in cases:
        write_adapter(lora, tensors)
        (lora / "adapter_more.safetensors").unlink(missing_ok=True)
        spoil()
        with pytest.raises(kind, match=words):
            adapter_to_gguf(files(lora), scratch(tmp_path), base, lambda _: None)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([("blk.9.x.weight.lora_a", (8, 2)), ("blk.9.x.weight.lora_b", (2, 8))], "changes blk.9.x.weight, which"),
        ([("w.lora_a", (8, 2))], "one of two"),
        ([("w.lora_a", (9, 2)), ("w.lora_b", (2, 16))], "do not fit"),
        ([("w.lora_a", (8, 2)), ("w.lora_b", (2, 8))], "do not fit"),
        ([("w.lora_a", (8, 3)), ("w.lora_b", (2, 16))], "different ranks"),
    ],
)
def test_an_adapter_for_another_model(tmp_path: Path, tensors: list[tuple[str, tuple[int, ...]]], words: str) -> None:
    def header(data: bytes) -> Header:
        path = tmp_path / "x.gguf"
        path.write_bytes(data)
        return read_header(path)

    base = header(gguf_bytes(tensors=[Tensor("w", (8, 16))]))
    good = [Tensor("w.lora_a", (8, 2)), Tensor("w.lora_b", (2, 16))]
    kind = {"general.type": "adapter"}
    check_fits(header(gguf_bytes(tensors=good, metadata=kind)), base, "it")
    made = header(gguf_bytes(tensors=[Tensor(name, shape) for name, shape in tensors], metadata=kind))
    with pytest.raises(ModelFileError, match=words):
        check_fits(made, base, "it")
