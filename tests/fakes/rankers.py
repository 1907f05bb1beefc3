"""Small reranking models with random weights, as files, and what they compute, in NumPy.

A BERT with a head for one score, as BGE's rerankers are, also around a published encoder; a Qwen 3 that says `yes` or
`no`, as Qwen's are published, and the same with these two words' rows for a head, as llama.cpp's converter writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import erf, sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fakes.gguf_files import CHATML, Tensor, Value, byte_tokens, write_gguf
from puna.convert.families import FAMILIES
from puna.convert.vocabulary import wordpiece

Numbers = NDArray[np.float32]

_WHOLE = ("a", "the", "cat", "dog", "sat", "ran", "on", "of", "sea")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_POOLED_AS_RANK = 4


class Bert:
    """The model, and a head for ranks. `words`: its vocabulary as GGUF files have it, `▁` where a word begins.

    `tensors` by llama.cpp's names, rows first. It has one kind of token, as rerankers have that llama.cpp can run.
    """

    def __init__(
        self,
        words: Sequence[str],
        tensors: Mapping[str, Numbers],
        *,
        heads: int,
        name: str = "Tiny reranker",
        epsilon: float = 1e-12,
    ) -> None:
        self.words, self.name, self.heads, self.epsilon = words, name, heads, epsilon
        self.tensors = dict(tensors)
        self._ids = {word: number for number, word in enumerate(words)}
        self.pad, self.unknown, self.begin, self.end, self.mask = (self._ids[word] for word in SPECIAL)
        self.context_length, self.width = self.tensors["position_embd.weight"].shape
        self.layers = len([name for name in tensors if name.endswith("attn_q.weight")])

    def with_head(self, seed: int, scale: float) -> Bert:
        source = np.random.default_rng(seed)
        width = self.width
        shapes = {"cls.weight": (width, width), "cls.bias": (width,)}
        shapes |= {"cls.output.weight": (1, width), "cls.output.bias": (1,)}
        head = {name: source.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}
        return Bert(self.words, self.tensors | head, heads=self.heads, name=self.name, epsilon=self.epsilon)

    def write(self, path: Path, **more: Value) -> Path:
        metadata: dict[str, Value] = {
            "general.name": self.name,
            "bert.context_length": self.context_length,
            "bert.embedding_length": self.width,
            "bert.feed_forward_length": len(self.tensors["blk.0.ffn_up.weight"]),
            "bert.block_count": self.layers,
            "bert.attention.head_count": self.heads,
            "bert.attention.layer_norm_epsilon": self.epsilon,
            "bert.attention.causal": False,
            "bert.pooling_type": _POOLED_AS_RANK,
            "tokenizer.ggml.model": "bert",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.token_type": [3 if word in SPECIAL else 1 for word in self.words],
            "tokenizer.ggml.token_type_count": len(self.tensors["token_types.weight"]),
            "tokenizer.ggml.bos_token_id": self.begin,
            "tokenizer.ggml.eos_token_id": self.end,
            "tokenizer.ggml.unknown_token_id": self.unknown,
            "tokenizer.ggml.seperator_token_id": self.end,
            "tokenizer.ggml.padding_token_id": self.pad,
            "tokenizer.ggml.cls_token_id": self.begin,
            "tokenizer.ggml.mask_token_id": self.mask,
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_eos_token": True,
            "tokenizer.ggml.add_sep_token": False,
        }
        tensors = [_tensor(name, values) for name, values in self.tensors.items()]
        return write_gguf(path, architecture="bert", metadata=metadata | more, tokens=self.words, tensors=tensors)

    def ids(self, text: str) -> list[int]:
        """Of lower-case ASCII, the longest piece first."""
        found: list[int] = []
        for word in re.findall(r"\w+|[^\w\s]", text.lower()):
            rest = f"▁{word}"
            while rest:
                end = next(size for size in range(len(rest), 0, -1) if rest[:size] in self._ids)
                found.append(self._ids[rest[:end]])
                rest = rest[end:]
        return found

    def pair(self, query: str, document: str) -> list[int]:
        """As llama.cpp lays it out."""
        return [self.begin, *self.ids(query), self.end, *self.ids(document), self.end]

    def log_odds(self, query: str, document: str) -> float:
        return self.of_ids(self.pair(query, document))

    def of_ids(self, ids: Sequence[int]) -> float:
        first = self.rows(ids)[:1]
        return float(self._dense(np.tanh(self._dense(first, "cls")), "cls.output")[0, 0])

    def embedding(self, text: str) -> Numbers:
        """The mean over all tokens."""
        mean = self.rows([self.begin, *self.ids(text), self.end]).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean))

    def rows(self, ids: Sequence[int]) -> Numbers:
        """What the last layer says of each token."""
        tensors = self.tensors
        rows = tensors["token_embd.weight"][list(ids)] + tensors["position_embd.weight"][: len(ids)]
        rows = self._norm(rows + tensors["token_types.weight"][0], "token_embd_norm")
        for layer in range(self.layers):
            at = f"blk.{layer}."
            rows = self._norm(rows + self._attended(rows, at), f"{at}attn_output_norm")
            wide = self._dense(rows, f"{at}ffn_up")
            share = np.fromiter(map(erf, (wide / sqrt(2)).flat), np.float32, wide.size).reshape(wide.shape)
            wide = wide * 0.5 * (1 + share)
            rows = self._norm(rows + self._dense(wide, f"{at}ffn_down"), f"{at}layer_output_norm")
        return rows

    def _attended(self, rows: Numbers, at: str) -> Numbers:
        q, k, v = (
            self._dense(rows, f"{at}attn_{part}").reshape(len(rows), self.heads, -1).swapaxes(0, 1) for part in "qkv"
        )
        scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ v
        return self._dense(mixed.swapaxes(0, 1).reshape(len(rows), -1), f"{at}attn_output")

    def _dense(self, rows: Numbers, name: str) -> Numbers:
        return np.asarray(rows @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"])

    def _norm(self, rows: Numbers, name: str) -> Numbers:
        centred = rows - rows.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(rows.var(axis=-1, keepdims=True) + self.epsilon)
        return np.asarray(scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"])


def tiny_bert(seed: int = 0, *, context_length: int = 64, kinds: int = 1) -> Bert:
    """Two layers, over some words and the letters. `kinds` of tokens."""
    width, hidden, layers = 32, 64, 2
    begun = [*_WHOLE, *(letter for letter in _LETTERS if letter not in _WHOLE)]
    words = [*SPECIAL, *(f"▁{word}" for word in begun), *_LETTERS]
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(words), width),
        "token_types.weight": (kinds, width),
        "position_embd.weight": (context_length, width),
        "token_embd_norm.weight": (width,),
        "token_embd_norm.bias": (width,),
    }
    for layer in range(layers):
        for name, rows, columns in (
            *((f"attn_{part}", width, width) for part in ("q", "k", "v", "output")),
            ("ffn_up", hidden, width),
            ("ffn_down", width, hidden),
        ):
            shapes |= {f"blk.{layer}.{name}.weight": (rows, columns), f"blk.{layer}.{name}.bias": (rows,)}
        for name in ("attn_output_norm", "layer_output_norm"):
            shapes |= {f"blk.{layer}.{name}.{part}": (width,) for part in ("weight", "bias")}
    source = np.random.default_rng(seed)
    tensors = {
        name: (source.normal(0, 0.3, shape) + ("norm.weight" in name)).astype(np.float32)
        for name, shape in shapes.items()
    }
    return Bert(words, tensors, heads=4).with_head(seed, 0.3)


def published_bert(directory: Path) -> Bert:
    """The encoder that is there as safetensors, as if it had one kind of token: without a head."""
    config = json.loads((directory / "config.json").read_text())
    data = (directory / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    tensors: dict[str, Numbers] = {}
    for name, told in json.loads(data[8 : 8 + length]).items():
        target = FAMILIES["bert"].target(name)
        if target and told["dtype"] == "F32":
            begin, end = (8 + length + offset for offset in told["data_offsets"])
            tensors[target] = np.frombuffer(data[begin:end], np.float32).reshape(told["shape"])
    tensors["token_types.weight"] = tensors["token_types.weight"][:1]
    words = wordpiece(directory)["tokenizer.ggml.tokens"]
    assert isinstance(words, list)
    heads, epsilon = config["num_attention_heads"], config["layer_norm_eps"]
    return Bert([str(word) for word in words], tensors, heads=heads, name="Published", epsilon=epsilon)


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
