"""The families computed plainly: float32 NumPy over whole prompts, weights dequantised by the `gguf` package.

Shares nothing with the engine: rotary pairs are complex numbers in the file's own order, attention is a full matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from puna.model.gguf import read_header

Floats = NDArray[np.float32]


class Reference:
    """One model file."""

    def __init__(self, path: Path) -> None:
        self.header = read_header(path)
        self.family = self.header.architecture
        data = np.memmap(path, np.uint8, mode="r")
        self.tensors: dict[str, Floats] = {}
        for info in self.header.tensors:
            raw = np.asarray(data[info.offset : info.offset + info.size])
            if info.type.name in {"F32", "F16"}:
                numbers = raw.view(np.float32 if info.type.name == "F32" else np.float16).astype(np.float32)
            else:
                numbers = dequantize(raw, GGMLQuantizationType[info.type.name])
            self.tensors[info.name] = numbers.reshape(info.shape[::-1])

    def fact(self, key: str, default: float = 0.0) -> float:
        value = self.header.metadata.get(f"{self.family}.{key}", default)
        assert isinstance(value, int | float)
        return float(value)

    def logits(self, ids: Sequence[int]) -> Floats:
        x = self.tensors["token_embd.weight"][list(ids)]
        if self.family == "gemma3":
            x = x * np.float32(math.sqrt(x.shape[1]))
        for layer in range(int(self.fact("block_count"))):
            x = self._layer(x, f"blk.{layer}", layer)
        head = self.tensors.get("output.weight", self.tensors["token_embd.weight"])
        logits: Floats = self._norm(x, "output_norm.weight") @ head.T
        return logits

    def _layer(self, x: Floats, block: str, layer: int) -> Floats:
        h = self._attention(self._norm(x, f"{block}.attn_norm.weight"), block, layer)
        x = x + (self._norm(h, f"{block}.post_attention_norm.weight") if self.family == "gemma3" else h)
        h = self._norm(x, f"{block}.ffn_norm.weight")
        if self.family == "phi3":
            gate, up = np.split(self._times(h, f"{block}.ffn_up"), 2, axis=1)
        else:
            gate, up = self._times(h, f"{block}.ffn_gate"), self._times(h, f"{block}.ffn_up")
        act = _gelu if self.family == "gemma3" else _silu
        h = self._times(act(gate) * up, f"{block}.ffn_down")
        return x + (self._norm(h, f"{block}.post_ffw_norm.weight") if self.family == "gemma3" else h)

    def _attention(self, x: Floats, block: str, layer: int) -> Floats:
        heads, size = int(self.fact("attention.head_count")), int(self.fact("attention.key_length"))
        size = size or x.shape[1] // heads
        kv_heads = int(self.fact("attention.head_count_kv"))
        if self.family == "phi3":
            fused = self._times(x, f"{block}.attn_qkv")
            parts = np.split(fused, [heads * size, (heads + kv_heads) * size], axis=1)
        else:
            parts = [self._times(x, f"{block}.attn_{part}") for part in "qkv"]
        query, key, value = (part.reshape(len(x), -1, size).swapaxes(0, 1) for part in parts)
        if self.family in {"qwen3", "gemma3"}:
            query = self._norm(query, f"{block}.attn_q_norm.weight")
            key = self._norm(key, f"{block}.attn_k_norm.weight")
        window = int(self.fact("attention.sliding_window")) if self.family == "gemma3" and (layer + 1) % 6 else 0
        query, key = self._rotate(query, bool(window)), self._rotate(key, bool(window))
        repeats = heads // kv_heads
        scores = query @ np.repeat(key, repeats, axis=0).swapaxes(1, 2) / np.float32(math.sqrt(size))
        place = np.arange(len(x))
        hidden = place[None, :] > place[:, None]
        if window:
            hidden |= place[:, None] - place[None, :] >= window
        scores[:, hidden] = -np.inf
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = (scores @ np.repeat(value, repeats, axis=0)).swapaxes(0, 1).reshape(len(x), -1)
        return self._times(mixed, f"{block}.attn_output")

    def _rotate(self, x: Floats, near: bool) -> Floats:
        """x: [heads, tokens, size]."""
        rotary = int(self.fact("rope.dimension_count")) or x.shape[-1]
        base = 10000.0 if near else self.fact("rope.freq_base", 10000.0)
        speeds = base ** (-np.arange(0, rotary, 2) / rotary)
        kind = self.header.metadata.get(f"{self.family}.rope.scaling.type")
        if kind == "linear" and not near:
            speeds = speeds / self.fact("rope.scaling.factor", 1.0)
        if "rope_freqs.weight" in self.tensors:
            speeds = speeds / self.tensors["rope_freqs.weight"]
        turns = np.exp(1j * np.arange(x.shape[1])[:, None] * speeds)
        y = x.copy()
        if self.family == "llama":
            pairs = (x[..., 0:rotary:2] + 1j * x[..., 1:rotary:2]) * turns
            y[..., 0:rotary:2], y[..., 1:rotary:2] = pairs.real, pairs.imag
        else:
            half = rotary // 2
            pairs = (x[..., :half] + 1j * x[..., half:rotary]) * turns
            y[..., :half], y[..., half:rotary] = pairs.real, pairs.imag
        return y

    def _norm(self, x: Floats, name: str) -> Floats:
        root = np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(self.fact("attention.layer_norm_rms_epsilon")))
        normed: Floats = x / root * self.tensors[name]
        return normed

    def _times(self, x: Floats, name: str) -> Floats:
        y: Floats = x @ self.tensors[f"{name}.weight"].T
        bias = self.tensors.get(f"{name}.bias")
        return y if bias is None else y + bias


def _silu(x: Floats) -> Floats:
    return x / (1 + np.exp(-x))


def _gelu(x: Floats) -> Floats:
    half: Callable[[Floats], Floats] = np.tanh
    return 0.5 * x * (1 + half(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
