"""Writes models as they are published: safetensors with random numbers, a tokenizer, settings in JSON."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakes.gguf_files import CHATML, SPECIAL_TOKENS, byte_tokens

Numbers = NDArray[np.float32]


def write_safetensors(path: Path, tensors: Mapping[str, Numbers], kind: str = "F32") -> Path:
    """`kind`: F32, F16 or BF16, whose lower bits are cut off."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, numbers in tensors.items():
        match kind:
            case "BF16":
                raw = (numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes()
            case "F16":
                raw = numbers.astype(np.float16).tobytes()
            case _:
                raw = numbers.tobytes()
        place = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": kind, "shape": list(numbers.shape), "data_offsets": place}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


WIDTH, HIDDEN, LAYERS, HEADS, HEADS_KV, HEAD = 32, 64, 2, 4, 2, 32


def write_decoder(directory: Path, kind: str = "llama", *, dtype: str = "F32", **config: Any) -> dict[str, Numbers]:
    """A llama, qwen2 or qwen3 over the bytes, in two files. Gives its tensors."""
    source = np.random.default_rng(1)
    tokens = byte_tokens()

    def drawn(*shape: int) -> Numbers:
        return source.normal(0, 0.1, shape).astype(np.float32)

    tensors = {
        "model.embed_tokens.weight": drawn(len(tokens), WIDTH),
        "model.norm.weight": np.ones(WIDTH, np.float32),
        "lm_head.weight": drawn(len(tokens), WIDTH),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        tensors |= {
            at + "input_layernorm.weight": np.ones(WIDTH, np.float32),
            at + "post_attention_layernorm.weight": np.ones(WIDTH, np.float32),
            at + "self_attn.q_proj.weight": drawn(HEADS * HEAD, WIDTH),
            at + "self_attn.k_proj.weight": drawn(HEADS_KV * HEAD, WIDTH),
            at + "self_attn.v_proj.weight": drawn(HEADS_KV * HEAD, WIDTH),
            at + "self_attn.o_proj.weight": drawn(WIDTH, HEADS * HEAD),
            at + "mlp.gate_proj.weight": drawn(HIDDEN, WIDTH),
            at + "mlp.up_proj.weight": drawn(HIDDEN, WIDTH),
            at + "mlp.down_proj.weight": drawn(WIDTH, HIDDEN),
        }
        if kind == "qwen2":
            sizes = {"q": HEADS * HEAD, "k": HEADS_KV * HEAD, "v": HEADS_KV * HEAD}
            tensors |= {f"{at}self_attn.{letter}_proj.bias": drawn(size) for letter, size in sizes.items()}
        if kind == "qwen3":
            tensors |= {f"{at}self_attn.{letter}_norm.weight": np.ones(HEAD, np.float32) for letter in "qk"}
    names = list(tensors)
    for number, part in enumerate((names[:5], names[5:]), 1):
        path = directory / f"model-{number:05}-of-00002.safetensors"
        write_safetensors(path, {name: tensors[name] for name in part}, dtype)
    settings = {
        "model_type": kind,
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS_KV,
        "head_dim": HEAD,
        "max_position_embeddings": 512,
        "vocab_size": len(tokens),
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    (directory / "config.json").write_text(json.dumps(settings | config))
    write_byte_tokenizer(directory, tokens)
    return tensors


MODULES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
    "mlp.down_proj",
)  # fmt: skip


def write_adapter(
    directory: Path, tensors: Mapping[str, Numbers], *, rank: int = 4, alpha: float = 6.0, **config: Any
) -> dict[str, Numbers]:
    """LoRA for every layer of a decoder, as PEFT writes it. Gives the tensors that the model would have with it."""
    source = np.random.default_rng(2)
    merged, written = dict(tensors), {}
    own = config.get("alpha_pattern", {})
    for name, numbers in tensors.items():
        module = name.removesuffix(".weight")
        if not name.endswith(".weight") or not module.endswith(MODULES):
            continue
        down = source.normal(0, 0.3, (rank, numbers.shape[1])).astype(np.float32)
        up = source.normal(0, 0.3, (numbers.shape[0], rank)).astype(np.float32)
        scale = next((value for key, value in own.items() if module.endswith(key)), alpha)
        scale /= rank**0.5 if config.get("use_rslora") else rank
        merged[name] = (numbers + scale * (up @ down)).astype(np.float32)
        written[f"base_model.model.{module}.lora_A.weight"] = down
        written[f"base_model.model.{module}.lora_B.weight"] = up
    directory.mkdir(exist_ok=True)
    write_safetensors(directory / "adapter_model.safetensors", written)
    told = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none", "target_modules": list(MODULES)}
    (directory / "adapter_config.json").write_text(json.dumps(told | config))
    return merged


def write_byte_tokenizer(directory: Path, tokens: Sequence[str]) -> None:
    special = [
        {"id": number, "content": text, "special": True} for number, text in enumerate(tokens) if text in SPECIAL_TOKENS
    ]
    plain = {text: number for number, text in enumerate(tokens) if text not in SPECIAL_TOKENS}
    tokenizer = {
        "added_tokens": special,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}],
        },
        "model": {"type": "BPE", "vocab": plain, "merges": ["Ġ t", ["h", "e"]]},
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    told = {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}, "chat_template": CHATML}
    (directory / "tokenizer_config.json").write_text(json.dumps(told))
