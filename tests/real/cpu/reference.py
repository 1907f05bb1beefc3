"""The families computed plainly: float32 NumPy over whole prompts, weights dequantised by the `gguf` package.

Shares nothing with the engine: rotary pairs are complex numbers in the file's own order, attention is a full matrix,
every row meets every expert.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.model.gguf import read_header
from real.cpu.models import numbers_of

Floats = NDArray[np.float32]

NEIGHBOURS = {"llama", "smollm3", "granite"}
"""Families whose files keep a rotary pair next to each other."""
GEMMA = {"gemma2", "gemma3", "gemma4"}
EVERY_OTHER = {"gemma2", "gpt-oss"}
"""Families in which the first layer of two has a window."""


class Reference:
    """One file. `num_ctx`: the longest a prompt will be. `halves`: keys and values in 16 bits, as in the cache."""

    def __init__(self, path: Path, *, num_ctx: int = 0, halves: bool = False) -> None:
        self.header = read_header(path)
        self.family = self.header.architecture
        self.tensors: dict[str, Floats] = numbers_of(path)
        self.num_ctx = num_ctx
        self.halves = halves
        self._kept: dict[int, tuple[Floats, Floats]] = {}

    def fact(self, key: str, default: float = 0.0) -> float:
        value = self.header.metadata.get(f"{self.family}.{key}", default)
        assert isinstance(value, int | float)
        return float(value)

    def logits(self, ids: Sequence[int]) -> Floats:
        x = self.tensors["token_embd.weight"][list(ids)]
        if self.family in GEMMA:
            x = x * np.float32(math.sqrt(x.shape[1]))
        x = x * np.float32(self.fact("embedding_scale", 1.0))
        inputs = self._inputs(ids, x) if "per_layer_model_proj.weight" in self.tensors else None
        for layer in range(int(self.fact("block_count"))):
            x = self._layer(x, f"blk.{layer}", layer)
            if inputs is not None:
                gate = _gelu(self._times(x, f"blk.{layer}.inp_gate")) * inputs[:, layer]
                x = x + self._norm(self._times(gate, f"blk.{layer}.proj"), f"blk.{layer}.post_norm")
            if f"blk.{layer}.layer_output_scale.weight" in self.tensors:
                x = x * self.tensors[f"blk.{layer}.layer_output_scale.weight"]
        head = self.tensors.get("output.weight", self.tensors["token_embd.weight"])
        last = "token_embd_norm" if self.family == "lfm2" else "output_norm"
        logits: Floats = self._norm(x, last) @ head.T
        logits = logits / np.float32(self.fact("logit_scale", 1.0))
        cap = self.fact("final_logit_softcapping", 30.0 if self.family in {"gemma2", "gemma4"} else 0.0)
        return _capped(logits, cap) if cap else logits

    def _inputs(self, ids: Sequence[int], x: Floats) -> Floats:
        """[token][layer][numbers] of what layers add of their own."""
        projected = self._times(x, "per_layer_model_proj") / np.float32(math.sqrt(x.shape[1]))
        projected = projected.reshape(len(x), int(self.fact("block_count")), -1)
        own = self.tensors["per_layer_token_embd.weight"][list(ids)].reshape(projected.shape)
        own = own * np.float32(math.sqrt(own.shape[2]))
        return (self._norm(projected, "per_layer_proj_norm") + own) / np.float32(math.sqrt(2))

    def _layer(self, x: Floats, block: str, layer: int) -> Floats:
        residual = np.float32(self.fact("residual_scale", 1.0))
        h = self._part(block)(self._norm(x, f"{block}.attn_norm"), block, layer)
        x = x + residual * (self._norm(h, f"{block}.post_attention_norm") if self.family in GEMMA else h)
        second = "post_attention_norm" if self.family in {"gpt-oss", "qwen35"} else "ffn_norm"
        h = self._norm(x, f"{block}.{second}")
        if f"{block}.pre_ffw_norm_2.weight" in self.tensors:
            h = self._norm(self._feed_forward(h, block), f"{block}.post_ffw_norm_1")
            h = h + self._norm(self._experts_beside(x, block), f"{block}.post_ffw_norm_2")
        else:
            h = self._experts(h, block) if "expert_count" in self._keys() else self._feed_forward(h, block)
        return x + residual * (self._norm(h, f"{block}.post_ffw_norm") if self.family in GEMMA else h)

    def _part(self, block: str) -> Callable[[Floats, str, int], Floats]:
        if f"{block}.shortconv.conv.weight" in self.tensors:
            return self._convolution
        return self._linear_attention if f"{block}.ssm_a" in self.tensors else self._attention

    def _keys(self) -> set[str]:
        return {key.removeprefix(f"{self.family}.") for key in self.header.metadata}

    def _feed_forward(self, h: Floats, block: str) -> Floats:
        if self.family == "phi3":
            gate, up = np.split(self._times(h, f"{block}.ffn_up"), 2, axis=1)
        else:
            gate, up = self._times(h, f"{block}.ffn_gate"), self._times(h, f"{block}.ffn_up")
        act = _gelu if self.family in GEMMA else _silu
        return self._times(act(gate) * up, f"{block}.ffn_down")

    def _experts(self, h: Floats, block: str) -> Floats:
        """All of them, each weighed by its share, which is 0 for those that a row does not take."""
        shares = self._shares(self._times(h, f"{block}.ffn_gate_inp"))
        mixed = np.zeros_like(h)
        for expert in range(shares.shape[1]):
            gate, up = (self._times(h, f"{block}.ffn_{part}_exps", expert) for part in ("gate", "up"))
            inner = _clamped(gate, up) if self.family == "gpt-oss" else _silu(gate) * up
            mixed += shares[:, expert, None] * self._times(inner, f"{block}.ffn_down_exps", expert)
        return mixed

    def _experts_beside(self, x: Floats, block: str) -> Floats:
        """Gemma 4's, whose router reads the row by a norm of its own, without weights."""
        root = np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(self._epsilon))
        routed = x / root * self.tensors[f"{block}.ffn_gate_inp.scale"] / np.float32(math.sqrt(x.shape[1]))
        shares = self._shares(self._times(routed, f"{block}.ffn_gate_inp"))
        h = self._norm(x, f"{block}.pre_ffw_norm_2")
        mixed = np.zeros_like(h)
        for expert in range(shares.shape[1]):
            gate, up = np.split(self._times(h, f"{block}.ffn_gate_up_exps", expert), 2, axis=1)
            weight = shares[:, expert, None] * self.tensors[f"{block}.ffn_down_exps.scale"][expert]
            mixed += weight * self._times(_gelu(gate) * up, f"{block}.ffn_down_exps", expert)
        return mixed

    def _shares(self, scores: Floats) -> Floats:
        """Of each row and expert; 0 for those that a row does not take."""
        count, used = scores.shape[1], int(self.fact("expert_used_count"))
        last = np.sort(scores, axis=1)[:, count - used, None]
        shares = np.where(scores >= last, np.exp(scores - scores.max(axis=1, keepdims=True)), 0)
        found: Floats = shares / shares.sum(axis=1, keepdims=True)
        return found

    def _convolution(self, x: Floats, block: str, layer: int) -> Floats:
        before, after, value = np.split(self._times(x, f"{block}.shortconv.in_proj"), 3, axis=1)
        mixed = before * value
        if self.halves:
            mixed = mixed.astype(np.float16).astype(np.float32)
        mixed = _convolved(mixed, self.tensors[f"{block}.shortconv.conv.weight"])
        return self._times(after * mixed, f"{block}.shortconv.out_proj")

    def _linear_attention(self, x: Floats, block: str, layer: int) -> Floats:
        """Token by token, a matrix [head][value][key]."""
        keys, values, size = (int(self.fact(f"ssm.{key}")) for key in ("group_count", "time_step_rank", "state_size"))
        mixed = self._times(x, f"{block}.attn_qkv")
        if self.halves:
            mixed = mixed.astype(np.float16).astype(np.float32)
        mixed = _silu(_convolved(mixed, self.tensors[f"{block}.ssm_conv1d.weight"]))
        query, key, value = np.split(mixed.reshape(len(x), -1, size), [keys, 2 * keys], axis=1)
        query, key = (np.tile(part, (1, values // keys, 1)) for part in (_unit(query), _unit(key)))
        beta = 1 / (1 + np.exp(-self._times(x, f"{block}.ssm_beta")))
        rate = np.logaddexp(0, self._times(x, f"{block}.ssm_alpha") + self.tensors[f"{block}.ssm_dt.bias"])
        decay = np.exp(rate * self.tensors[f"{block}.ssm_a"])
        matrix = np.zeros((values, size, size), np.float32)
        found = np.zeros((len(x), values, size), np.float32)
        for token in range(len(x)):
            matrix = matrix * decay[token][:, None, None]
            known = np.einsum("hvk,hk->hv", matrix, key[token])
            change = (value[token] - known) * beta[token][:, None]
            matrix = matrix + change[:, :, None] * key[token][:, None, :]
            found[token] = np.einsum("hvk,hk->hv", matrix, query[token]) / np.float32(math.sqrt(size))
        found = self._norm(found, f"{block}.ssm_norm").reshape(len(x), -1)
        return self._times(found * _silu(self._times(x, f"{block}.attn_gate")), f"{block}.ssm_out")

    def _attention(self, x: Floats, block: str, layer: int) -> Floats:
        heads, size = int(self.fact("attention.head_count")), int(self.fact("attention.key_length"))
        size = size or x.shape[1] // heads
        kv_heads = self.header.head_count_kv or heads
        if self.family == "gemma4":
            return self._attention_of_two_shapes(x, block, layer, heads)
        if self.family == "phi3":
            fused = self._times(x, f"{block}.attn_qkv")
            parts = np.split(fused, [heads * size, (heads + kv_heads) * size], axis=1)
        else:
            parts = [self._times(x, f"{block}.attn_{part}") for part in "qkv"]
        query, key, value = (part.reshape(len(x), -1, size).swapaxes(0, 1) for part in parts)
        gate = None
        if self.family == "qwen35":
            query, gate = query[0::2], query[1::2]
        if f"{block}.attn_q_norm.weight" in self.tensors:
            query, key = self._norm(query, f"{block}.attn_q_norm"), self._norm(key, f"{block}.attn_k_norm")
        window = int(self.fact("attention.sliding_window"))
        period = 2 if self.family in EVERY_OTHER else 6 if self.family == "gemma3" else 1
        window = window if (layer + 1) % period else 0
        if self.family != "smollm3" or (layer + 1) % 4:
            near = self.family == "gemma3" and bool(window)
            query, key = self._rotate(query, near), self._rotate(key, near)
        if self.halves:
            key, value = (part.astype(np.float16).astype(np.float32) for part in (key, value))
        scale = self.fact("attention.scale") or 1 / math.sqrt(size)
        return self._mixed(query, key, value, block, window, scale, gate)

    def _attention_of_two_shapes(self, x: Floats, block: str, layer: int, heads: int) -> Floats:
        """Gemma 4's: layers with a window have other heads, the last layers the keys of the last of their shape."""
        pattern = self.header.metadata[f"{self.family}.attention.sliding_window_pattern"]
        near = [bool(each) for each in getattr(pattern, "values", pattern)]
        size = self.tensors[f"{block}.attn_q_norm.weight"].shape[0]
        own = len(near) - int(self.fact("attention.shared_kv_layers"))

        def of(name: str) -> Floats:
            return self._times(x, f"{block}.{name}").reshape(len(x), -1, size).swapaxes(0, 1)

        query = self._rotate(self._norm(of("attn_q"), f"{block}.attn_q_norm"), near[layer])
        if layer < own:
            key, value = of("attn_k"), of("attn_v" if f"{block}.attn_v.weight" in self.tensors else "attn_k")
            value = value / np.sqrt((value * value).mean(axis=-1, keepdims=True) + np.float32(self._epsilon))
            key = self._rotate(self._norm(key, f"{block}.attn_k_norm"), near[layer])
            if self.halves:
                key, value = (part.astype(np.float16).astype(np.float32) for part in (key, value))
            self._kept[layer] = key, value
        key, value = self._kept[layer if layer < own else max(i for i in range(own) if near[i] == near[layer])]
        window = int(self.fact("attention.sliding_window")) if near[layer] else 0
        return self._mixed(query, key, value, block, window, 1.0)

    def _mixed(
        self,
        query: Floats,
        key: Floats,
        value: Floats,
        block: str,
        window: int,
        scale: float,
        gate: Floats | None = None,
    ) -> Floats:
        """Of [heads, tokens, size] each."""
        heads, count, _ = query.shape
        repeats = heads // len(key)
        scores = query @ np.repeat(key, repeats, axis=0).swapaxes(1, 2) * np.float32(scale)
        if self.family == "gemma2":
            scores = _capped(scores, 50.0)
        place = np.arange(count)
        hidden = place[None, :] > place[:, None]
        if window:
            hidden |= place[:, None] - place[None, :] >= window
        scores[:, hidden] = -np.inf
        if f"{block}.attn_sinks.weight" in self.tensors:
            sinks = np.broadcast_to(self.tensors[f"{block}.attn_sinks.weight"][:, None, None], (heads, count, 1))
            scores = np.concatenate([scores, sinks], axis=2)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores = (scores / scores.sum(axis=-1, keepdims=True))[:, :, :count]
        seen = scores @ np.repeat(value, repeats, axis=0)
        if gate is not None:
            seen = seen / (1 + np.exp(-gate))
        mixed = seen.swapaxes(0, 1).reshape(count, -1)
        return self._times(mixed, f"{block}.attn_output")

    def _rotate(self, x: Floats, near: bool) -> Floats:
        """x: [heads, tokens, size]."""
        rotary = int(self.fact("rope.dimension_count")) or x.shape[-1]
        if near and self.family == "gemma4":
            rotary = int(self.fact("rope.dimension_count_swa", rotary))
        speeds, magnitude = self._speeds(rotary, near)
        turns = magnitude * np.exp(1j * np.arange(x.shape[1])[:, None] * speeds)
        y = x.copy()
        if self.family in NEIGHBOURS:
            pairs = (x[..., 0:rotary:2] + 1j * x[..., 1:rotary:2]) * turns
            y[..., 0:rotary:2], y[..., 1:rotary:2] = pairs.real, pairs.imag
        else:
            half = rotary // 2
            pairs = (x[..., :half] + 1j * x[..., half:rotary]) * turns
            y[..., :half], y[..., half:rotary] = pairs.real, pairs.imag
        return y

    def _speeds(self, rotary: int, near: bool) -> tuple[NDArray[np.float64], float]:
        base = self.fact("rope.freq_base_swa", 10000.0) if near else self.fact("rope.freq_base", 10000.0)
        speeds = base ** (-np.arange(0, rotary, 2) / rotary)
        kind = self.header.metadata.get(f"{self.family}.rope.scaling.type")
        factor, first = self.fact("rope.scaling.factor", 1.0), self.fact("rope.scaling.original_context_length")
        if kind == "linear" and not near:
            speeds = speeds / factor
        if "rope_freqs.weight" in self.tensors and not near:
            speeds = speeds / self.tensors["rope_freqs.weight"]
        if "rope_factors_long.weight" in self.tensors:
            speeds = speeds / self.tensors[f"rope_factors_{'long' if self.num_ctx > first else 'short'}.weight"]
        if kind != "yarn":
            return speeds, self.fact("rope.scaling.attn_factor", 1.0)
        # Of the paper: a pair that turns 32 times or more within the first context is kept, one that turns once or
        # less is stretched, and between them goes a slope over whole pairs.
        turning = [rotary * math.log(first / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (32.0, 1.0)]
        low, high = max(0, math.floor(turning[0])), min(rotary - 1, math.ceil(turning[1]))
        kept = 1 - np.clip((np.arange(rotary // 2) - low) / max(0.001, high - low), 0, 1)
        return speeds / factor * (1 - kept) + speeds * kept, 1 + 0.1 * math.log(factor)

    @property
    def _epsilon(self) -> float:
        return self.fact("attention.layer_norm_rms_epsilon")

    def _norm(self, x: Floats, name: str) -> Floats:
        root = np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(self._epsilon))
        normed: Floats = x / root * self.tensors[f"{name}.weight"]
        return normed

    def _times(self, x: Floats, name: str, expert: int | None = None) -> Floats:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias")
        if expert is not None:
            weight, bias = weight[expert], bias if bias is None else bias[expert]
        y: Floats = x @ weight.T
        return y if bias is None else y + bias


def _convolved(x: Floats, weight: Floats) -> Floats:
    """weight: [channels][taps], the oldest token's first."""
    taps = weight.shape[1]
    padded = np.concatenate([np.zeros((taps - 1, x.shape[1]), np.float32), x])
    return sum((padded[i : i + len(x)] * weight[:, i] for i in range(taps)), np.zeros_like(x))


def _unit(x: Floats) -> Floats:
    unit: Floats = x / np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return unit


def _silu(x: Floats) -> Floats:
    return x / (1 + np.exp(-x))


def _gelu(x: Floats) -> Floats:
    tanh: Floats = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return np.float32(0.5) * x * (1 + tanh)


def _clamped(gate: Floats, up: Floats) -> Floats:
    gate, up = np.minimum(gate, np.float32(7)), np.clip(up, -7, 7)
    mixed: Floats = gate / (1 + np.exp(np.float32(-1.702) * gate)) * (up + 1)
    return mixed


def _capped(x: Floats, limit: float) -> Floats:
    capped: Floats = np.float32(limit) * np.tanh(x / np.float32(limit))
    return capped
