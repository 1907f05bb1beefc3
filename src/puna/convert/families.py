"""The families that are converted here: which tensor becomes which, and what the new file says of the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.convert.safetensors import Tensor
from puna.convert.source import Published, settings
from puna.convert.vocabulary import byte_level, chat_template, wordpiece
from puna.convert.writer import Made, MetadataEntry
from puna.errors import ModelFileError, Unsupported
from puna.model.ggml import TensorType

_F16, _BF16 = 1, 32
"""`general.file_type`."""
MEAN, CLS = 1, 2
"""`pooling_type`."""

Numbers = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Conversion:
    """`architecture`: llama.cpp's name. `names`: expressions for tensors of the source to names of ours, '' for those
    that are left out. `metadata`: of the directory and its settings.
    """

    architecture: str
    names: Mapping[str, str]
    metadata: Callable[[Path, Published], dict[str, MetadataEntry]]

    def target(self, name: str) -> str | None:
        """What a tensor becomes; '' when it is left out, None when nobody knows."""
        for pattern, target in self.names.items():
            if (match := re.fullmatch(pattern, name)) is not None:
                return match.expand(target)
        return None


def convert(directory: Path, tensors: Mapping[str, Tensor], name: str) -> tuple[dict[str, MetadataEntry], list[Made]]:
    """What is to be written. Unsupported: a model of another kind, or with a tensor that nothing here knows.

    ModelFileError: its config.json is not there, or says no kind.
    """
    config = settings(directory, "config.json")
    if not config.text("model_type"):
        there = (directory / "config.json").exists()
        said = "does not say of what kind the model is (model_type)" if there else "is missing beside the safetensors"
        raise ModelFileError(f"config.json {said}")
    kind = config.text("model_type") or ""
    family = FAMILIES.get(kind)
    if family is None:
        raise Unsupported(
            f"models of the kind '{kind}' are not converted by Puna ({', '.join(FAMILIES)} are)", param="files"
        )
    half = TensorType.BF16 if any(tensor.type == "BF16" for tensor in tensors.values()) else TensorType.F16
    metadata: dict[str, MetadataEntry] = {
        "general.architecture": family.architecture,
        "general.type": "model",
        "general.name": name,
        "general.file_type": _BF16 if half is TensorType.BF16 else _F16,
        **family.metadata(directory, config),
    }
    if (template := chat_template(directory)) is not None:
        metadata["tokenizer.chat_template"] = template
    outputs = [
        output
        for tensor in tensors.values()
        if (output := _output(family, config, tensor, half, frozenset(tensors))) is not None
    ]
    if (factors := _rope_factors(family, config)) is not None:
        outputs.append(factors)
    if not outputs:
        raise ModelFileError("the directory holds no tensors of the model")
    return metadata, outputs


def _output(
    family: Conversion, config: Published, tensor: Tensor, half: TensorType, names: frozenset[str]
) -> Made | None:
    target = family.target(tensor.name.removeprefix("bert."))
    if target is None:
        raise Unsupported(
            f"tensor '{tensor.name}' is none that a model of the kind '{family.architecture}' has here", param="files"
        )
    if target == "output.weight" and config.values.get("tie_word_embeddings") is True and len(names) > 1:
        return None
    if not target:
        return None
    # What is added or multiplied one by one is small, and read by llama.cpp in 32 bits.
    whole = len(tensor.shape) < 2 or target in {"position_embd.weight", "token_types.weight"}
    return Made(
        target, tensor.shape, TensorType.F32 if whole else half, lambda: _numbers(family, config, tensor, target)
    )


def _numbers(family: Conversion, config: Published, tensor: Tensor, target: str) -> Numbers:
    if family.architecture != "llama":
        return tensor.numbers()
    heads = config.count("num_attention_heads")
    heads_kv = config.count("num_key_value_heads", heads)
    return interleaved_heads(target, tensor.numbers(), family.architecture, heads, heads_kv)


def interleaved_heads(target: str, numbers: Numbers, architecture: str, heads: int, heads_kv: int) -> Numbers:
    """The rows of a weight, or of what is added to it, in llama.cpp's order. Only llama's queries and keys change."""
    if architecture != "llama" or not re.search(r"\.attn_[qk]\.", target):
        return numbers
    return _interleaved(numbers, heads_kv if ".attn_k." in target else heads)


def _interleaved(numbers: Numbers, heads: int) -> Numbers:
    """Rows of each head as llama.cpp turns them: pairs beside each other, not half a head apart."""
    rows = numbers.shape[0]
    if not heads or rows % (2 * heads):
        raise ModelFileError(f"{rows} rows are not of {heads} heads")
    return np.ascontiguousarray(
        numbers.reshape(heads, 2, rows // heads // 2, *numbers.shape[1:]).swapaxes(1, 2).reshape(numbers.shape)
    )


# ------------------------------------------------------------------------------------------------------------ families


def _bert(directory: Path, config: Published) -> dict[str, MetadataEntry]:
    if (config.text("position_embedding_type") or "absolute") != "absolute":
        raise Unsupported("BERT with relative positions is not converted by Puna", param="files")
    if config.text("hidden_act") not in {None, "gelu"}:
        raise Unsupported(f"BERT with {config.text('hidden_act')} is not converted by Puna", param="files")
    architectures = config.values.get("architectures")
    heads = [name for name in architectures if name != "BertModel"] if isinstance(architectures, list) else []
    if heads:
        raise Unsupported(f"{heads[0]} is not converted by Puna: of BERT, encoders without a head are", param="files")
    pooling = settings(directory, "1_Pooling/config.json")
    kinds = [
        name for name in ("mean_tokens", "cls_token", "max_tokens", "lasttoken") if pooling.said(f"pooling_mode_{name}")
    ]
    if kinds not in (["mean_tokens"], ["cls_token"], []):
        raise Unsupported(f"pooling by {' and '.join(kinds)} is not converted by Puna", param="files")
    return {
        "bert.context_length": config.count("max_position_embeddings"),
        "bert.embedding_length": config.count("hidden_size"),
        "bert.feed_forward_length": config.count("intermediate_size"),
        "bert.block_count": config.count("num_hidden_layers"),
        "bert.attention.head_count": config.count("num_attention_heads"),
        "bert.attention.layer_norm_epsilon": config.number("layer_norm_eps", 1e-12),
        "bert.attention.causal": False,
        "bert.pooling_type": CLS if kinds == ["cls_token"] else MEAN,
        "tokenizer.ggml.token_type_count": config.count("type_vocab_size", 2),
        **wordpiece(directory),
    }


def _decoder(architecture: str) -> Callable[[Path, Published], dict[str, MetadataEntry]]:
    def metadata(directory: Path, config: Published) -> dict[str, MetadataEntry]:
        if config.said("attention_bias") and architecture != "qwen2":
            raise Unsupported("attention with biases is not converted by Puna for this family", param="files")
        if config.said("use_sliding_window"):
            raise Unsupported("a sliding window is not converted by Puna for this family", param="files")
        hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
        head = config.count("head_dim", hidden // max(heads, 1))
        of = f"{architecture}."
        return {
            of + "context_length": config.count("max_position_embeddings"),
            of + "embedding_length": hidden,
            of + "feed_forward_length": config.count("intermediate_size"),
            of + "block_count": config.count("num_hidden_layers"),
            of + "vocab_size": config.count("vocab_size"),
            of + "attention.head_count": heads,
            of + "attention.head_count_kv": config.count("num_key_value_heads", heads),
            of + "attention.key_length": head,
            of + "attention.value_length": head,
            of + "attention.layer_norm_rms_epsilon": config.number("rms_norm_eps", 1e-6),
            of + "rope.dimension_count": head,
            of + "rope.freq_base": config.number("rope_theta", 10000.0),
            **_scaling(of, config),
            **byte_level(directory, config.count("vocab_size")),
        }

    return metadata


def _scaling(of: str, config: Published) -> dict[str, MetadataEntry]:
    scaling = Published("config.json: rope_scaling", config.object("rope_scaling"))
    match scaling.text("rope_type") or scaling.text("type") or "default":
        case "default" | "llama3":
            return {}
        case "linear":
            return {of + "rope.scaling.type": "linear", of + "rope.scaling.factor": scaling.number("factor")}
        case other:
            raise Unsupported(f"rope scaling by '{other}' is not converted by Puna", param="files")


def _rope_factors(family: Conversion, config: Published) -> Made | None:
    """Llama 3.1's: long waves are slowed by a factor, short ones not at all, and those between in part."""
    scaling = Published("config.json: rope_scaling", config.object("rope_scaling"))
    if (scaling.text("rope_type") or scaling.text("type")) != "llama3":
        return None
    if family.architecture != "llama":
        raise Unsupported("rope scaling by 'llama3' is not converted by Puna for this family", param="files")
    head = config.count("head_dim", config.count("hidden_size") // max(config.count("num_attention_heads"), 1))
    factor, low = scaling.number("factor"), scaling.number("low_freq_factor", 1.0)
    high, before = scaling.number("high_freq_factor", 4.0), scaling.count("original_max_position_embeddings", 8192)
    waves = 2 * np.pi * config.number("rope_theta", 10000.0) ** (np.arange(0, head, 2, dtype=np.float64) / head)
    smooth = np.clip((before / waves - low) / (high - low), 0.0, 1.0)
    factors = (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
    return Made("rope_freqs.weight", factors.shape, TensorType.F32, lambda: factors)


_BERT_LAYER = r"encoder\.layer\.(\d+)\."
_BERT = {
    r"embeddings\.position_ids|pooler\.dense\.(weight|bias)": "",
    r"embeddings\.word_embeddings\.weight": "token_embd.weight",
    r"embeddings\.position_embeddings\.weight": "position_embd.weight",
    r"embeddings\.token_type_embeddings\.weight": "token_types.weight",
    r"embeddings\.LayerNorm\.(weight|bias)": r"token_embd_norm.\1",
    _BERT_LAYER + r"attention\.self\.query\.(weight|bias)": r"blk.\1.attn_q.\2",
    _BERT_LAYER + r"attention\.self\.key\.(weight|bias)": r"blk.\1.attn_k.\2",
    _BERT_LAYER + r"attention\.self\.value\.(weight|bias)": r"blk.\1.attn_v.\2",
    _BERT_LAYER + r"attention\.output\.dense\.(weight|bias)": r"blk.\1.attn_output.\2",
    _BERT_LAYER + r"attention\.output\.LayerNorm\.(weight|bias)": r"blk.\1.attn_output_norm.\2",
    _BERT_LAYER + r"intermediate\.dense\.(weight|bias)": r"blk.\1.ffn_up.\2",
    _BERT_LAYER + r"output\.dense\.(weight|bias)": r"blk.\1.ffn_down.\2",
    _BERT_LAYER + r"output\.LayerNorm\.(weight|bias)": r"blk.\1.layer_output_norm.\2",
}
_LAYER = r"model\.layers\.(\d+)\."
_PLAIN = {
    r"model\.embed_tokens\.weight": "token_embd.weight",
    r"model\.norm\.weight": "output_norm.weight",
    r"lm_head\.weight": "output.weight",
    _LAYER + r"input_layernorm\.weight": r"blk.\1.attn_norm.weight",
    _LAYER + r"self_attn\.([qkv])_proj\.weight": r"blk.\1.attn_\2.weight",
    _LAYER + r"self_attn\.o_proj\.weight": r"blk.\1.attn_output.weight",
    _LAYER + r"self_attn\.rotary_emb\.inv_freq": "",
    _LAYER + r"post_attention_layernorm\.weight": r"blk.\1.ffn_norm.weight",
    _LAYER + r"mlp\.(gate|up|down)_proj\.weight": r"blk.\1.ffn_\2.weight",
}
_BIASES = {_LAYER + r"self_attn\.([qkv])_proj\.bias": r"blk.\1.attn_\2.bias"}
_HEAD_NORMS = {_LAYER + r"self_attn\.([qk])_norm\.weight": r"blk.\1.attn_\2_norm.weight"}

FAMILIES: Mapping[str, Conversion] = {
    "bert": Conversion("bert", _BERT, _bert),
    "llama": Conversion("llama", _PLAIN, _decoder("llama")),
    "qwen2": Conversion("qwen2", _PLAIN | _BIASES, _decoder("qwen2")),
    "qwen3": Conversion("qwen3", _PLAIN | _HEAD_NORMS, _decoder("qwen3")),
}
"""By `model_type` of config.json."""
