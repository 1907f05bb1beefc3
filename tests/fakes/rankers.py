"""Small reranking models with random weights, as files, and what they compute, in NumPy.

A BERT with a head for one score, as BGE's rerankers are; a Qwen 3 that says `yes` or `no`, as Qwen's are published, and
the same with these two words' rows for a head, as llama.cpp's converter writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import erf, sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fakes.gguf_files import CHATML, Tensor, Value, byte_tokens, write_gguf

Numbers = NDArray[np.float32]

_WHOLE = ("a", "the", "cat", "dog", "sat", "ran", "on", "of", "sea")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"▁{word}" for word in _WHOLE))
"""Then the letters, at the beginning of a word and inside one."""

_WIDTH, _HIDDEN, _LAYERS, _HEADS, _EPSILON = 32, 64, 2, 4, 1e-12
_PAD, _UNKNOWN, _BEGIN, _END, _MASK = range(5)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_POOLED_AS_RANK = 4


class TinyBert:
    """The model. `ids` as its tokenizer makes them, between `[CLS]` and `[SEP]`."""

    def __init__(self, seed: int = 0, context_length: int = 64) -> None:
        self.words = [*WORDS, *(f"▁{letter}" for letter in _LETTERS if f"▁{letter}" not in WORDS), *_LETTERS]
        self.context_length = context_length
        source = np.random.default_rng(seed)
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (len(self.words), _WIDTH),
            "token_types.weight": (2, _WIDTH),
            "position_embd.weight": (context_length, _WIDTH),
            "token_embd_norm.weight": (_WIDTH,),
            "token_embd_norm.bias": (_WIDTH,),
            "cls.weight": (_WIDTH, _WIDTH),
            "cls.bias": (_WIDTH,),
            "cls.output.weight": (1, _WIDTH),
            "cls.output.bias": (1,),
        }
        for layer in range(_LAYERS):
            for name, rows, columns in (
                *((f"attn_{part}", _WIDTH, _WIDTH) for part in ("q", "k", "v", "output")),
                ("ffn_up", _HIDDEN, _WIDTH),
                ("ffn_down", _WIDTH, _HIDDEN),
            ):
                shapes |= {f"blk.{layer}.{name}.weight": (rows, columns), f"blk.{layer}.{name}.bias": (rows,)}
            for name in ("attn_output_norm", "layer_output_norm"):
                shapes |= {f"blk.{layer}.{name}.{part}": (_WIDTH,) for part in ("weight", "bias")}
        self.tensors: dict[str, Numbers] = {
            name: (source.normal(0, 0.3, shape) + ("norm.weight" in name)).astype(np.float32)
            for name, shape in shapes.items()
        }

    def write(self, path: Path, **more: Value) -> Path:
        metadata: dict[str, Value] = {
            "general.name": "Tiny reranker",
            "bert.context_length": self.context_length,
            "bert.embedding_length": _WIDTH,
            "bert.feed_forward_length": _HIDDEN,
            "bert.block_count": _LAYERS,
            "bert.attention.head_count": _HEADS,
            "bert.attention.layer_norm_epsilon": _EPSILON,
            "bert.attention.causal": False,
            "bert.pooling_type": _POOLED_AS_RANK,
            "tokenizer.ggml.model": "bert",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.token_type": [3] * 5 + [1] * (len(self.words) - 5),
            "tokenizer.ggml.token_type_count": 2,
            "tokenizer.ggml.bos_token_id": _BEGIN,
            "tokenizer.ggml.eos_token_id": _END,
            "tokenizer.ggml.unknown_token_id": _UNKNOWN,
            "tokenizer.ggml.seperator_token_id": _END,
            "tokenizer.ggml.padding_token_id": _PAD,
            "tokenizer.ggml.cls_token_id": _BEGIN,
            "tokenizer.ggml.mask_token_id": _MASK,
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_eos_token": True,
            "tokenizer.ggml.add_sep_token": False,
        }
        tensors = [_tensor(name, values) for name, values in self.tensors.items()]
        return write_gguf(path, architecture="bert", metadata=metadata | more, tokens=self.words, tensors=tensors)

    def ids(self, text: str) -> list[int]:
        found: list[int] = []
        for word in text.lower().split():
            if f"▁{word}" in self.words:
                found.append(self.words.index(f"▁{word}"))
            else:
                found += [self.words.index(f"▁{word[0]}"), *(self.words.index(letter) for letter in word[1:])]
        return found

    def log_odds(self, query: str, document: str) -> float:
        """Of a pair as llama.cpp lays it out."""
        return self.of_ids([_BEGIN, *self.ids(query), _END, *self.ids(document), _END])

    def of_ids(self, ids: Sequence[int]) -> float:
        tensors = self.tensors
        rows = tensors["token_embd.weight"][list(ids)] + tensors["position_embd.weight"][: len(ids)]
        rows = self._norm(rows + tensors["token_types.weight"][0], "token_embd_norm")
        for layer in range(_LAYERS):
            at = f"blk.{layer}."
            rows = self._norm(rows + self._attended(rows, at), f"{at}attn_output_norm")
            wide = self._dense(rows, f"{at}ffn_up")
            wide = wide * 0.5 * (1 + np.vectorize(erf)(wide / sqrt(2)))
            rows = self._norm(rows + self._dense(wide, f"{at}ffn_down"), f"{at}layer_output_norm")
        return float(self._dense(np.tanh(self._dense(rows[:1], "cls")), "cls.output")[0, 0])

    def _attended(self, rows: Numbers, at: str) -> Numbers:
        q, k, v = (
            self._dense(rows, f"{at}attn_{part}").reshape(len(rows), _HEADS, -1).swapaxes(0, 1) for part in "qkv"
        )
        weights = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
        mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ v
        return self._dense(mixed.swapaxes(0, 1).reshape(len(rows), -1), f"{at}attn_output")

    def _dense(self, rows: Numbers, name: str) -> Numbers:
        return np.asarray(rows @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"])

    def _norm(self, rows: Numbers, name: str) -> Numbers:
        centred = rows - rows.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(rows.var(axis=-1, keepdims=True) + _EPSILON)
        return np.asarray(scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"])


def write_tiny_qwen3(path: Path, *, seed: int = 0, pooled: bool = False, context_length: int = 1024) -> Path:
    """A Qwen 3 reranker; `pooled`: with a head for the two words. Both compute the same chance of `yes`."""
    width, hidden, layers, heads, heads_kv, head = 64, 96, 2, 2, 1, 32
    tokens = [*byte_tokens(), "yes", "no"]
    special = len(byte_tokens()) - 3
    source = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(tokens), width), "output_norm.weight": (width,)}
    for layer in range(layers):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (width,),
            f"blk.{layer}.attn_q.weight": (head * heads, width),
            f"blk.{layer}.attn_k.weight": (head * heads_kv, width),
            f"blk.{layer}.attn_v.weight": (head * heads_kv, width),
            f"blk.{layer}.attn_q_norm.weight": (head,),
            f"blk.{layer}.attn_k_norm.weight": (head,),
            f"blk.{layer}.attn_output.weight": (width, head * heads),
            f"blk.{layer}.ffn_norm.weight": (width,),
            f"blk.{layer}.ffn_gate.weight": (hidden, width),
            f"blk.{layer}.ffn_up.weight": (hidden, width),
            f"blk.{layer}.ffn_down.weight": (width, hidden),
        }
    values = {
        name: (source.normal(0, 0.3, shape) + ("norm" in name)).astype(np.float32) for name, shape in shapes.items()
    }
    metadata: dict[str, Value] = {
        "general.name": "Tiny Qwen3 Reranker",
        "qwen3.block_count": layers,
        "qwen3.context_length": context_length,
        "qwen3.embedding_length": width,
        "qwen3.feed_forward_length": hidden,
        "qwen3.attention.head_count": heads,
        "qwen3.attention.head_count_kv": heads_kv,
        "qwen3.attention.key_length": head,
        "qwen3.attention.value_length": head,
        "qwen3.attention.layer_norm_rms_epsilon": 1e-6,
        "qwen3.rope.freq_base": 1e6,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.token_type": [1] * special + [3] * 3 + [4, 4],
        "tokenizer.ggml.merges": ["Ġ t", "h e"],
        "tokenizer.ggml.bos_token_id": special,
        "tokenizer.ggml.eos_token_id": special + 2,
        "tokenizer.ggml.padding_token_id": special,
        "tokenizer.ggml.add_bos_token": False,
    }
    tensors = [_tensor(name, numbers) for name, numbers in values.items()]
    if pooled:
        from puna.inference.rank import QWEN3_PAIR

        metadata |= {
            "qwen3.pooling_type": _POOLED_AS_RANK,
            "qwen3.classifier.output_labels": ["yes", "no"],
            "tokenizer.chat_template.rerank": QWEN3_PAIR.format(query="{query}", document="{document}"),
            "tokenizer.chat_templates": ["rerank"],
        }
        tensors.append(_tensor("cls.output.weight", values["token_embd.weight"][-2:]))
    return write_gguf(
        path, architecture="qwen3", metadata=metadata, chat_template=CHATML, tokens=tokens, tensors=tensors
    )


def _tensor(name: str, values: Numbers) -> Tensor:
    return Tensor(name, tuple(reversed(values.shape)), data=np.ascontiguousarray(values).tobytes())
