"""Small models with random weights, of every family and tensor type, and what llama.cpp makes of them."""

from __future__ import annotations

import atexit
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from fakes.gguf_files import Tensor, Value, write_gguf
from puna.engine.cpu.forward import Forward
from puna.model.ggml import TensorType
from puna.model.gguf import TensorInfo, read_header

NATIVE = Path(__file__).with_name("native.py")

Floats = NDArray[np.float32]


class _LlamaCpp:
    """A process of `native.py`, begun with the first job: nothing of llama.cpp lives in the tests' process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._said: IO[str] | None = None
        atexit.register(self._end)

    def run(self, job: Mapping[str, object]) -> dict[str, object]:
        """One job. AssertionError, with what it wrote, where the process ended over it: the next job begins another."""
        if self._process is None:
            self._said = TemporaryFile("w+")  # noqa: SIM115  closed with the process
            command = [sys.executable, str(NATIVE)]
            self._process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=self._said, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError(self._end())
        result: dict[str, object] = json.loads(answer)
        return result

    def _end(self) -> str:
        """What it wrote."""
        if self._process is None or self._said is None:
            return ""
        self._process.communicate()
        self._process = None
        self._said.seek(0)
        with self._said as said:
            return said.read()


llama_cpp = _LlamaCpp().run


def native_logits(model: Path, ids: Sequence[int], directory: Path | None = None, *, at_once: int = 512) -> Floats:
    """What llama.cpp computes for every position, `at_once` tokens in a batch.

    Passed on in a file of `directory`, or beside the model.
    """
    file = (directory or model.parent) / f"{model.stem}.npy"
    llama_cpp({"model": str(model), "ids": list(ids), "logits": str(file), "at_once": at_once})
    logits: Floats = np.load(file)
    file.unlink()
    return logits


def quantise(directory: Path, arrays: Mapping[str, tuple[TensorType, Floats]]) -> dict[str, bytes]:
    """Pack arrays, rows last, with ggml's own code."""
    jobs: list[list[object]] = []
    files: dict[str, Path] = {}
    packed: dict[str, bytes] = {}
    for name, (kind, array) in arrays.items():
        if kind is TensorType.F32:
            packed[name] = array.astype(np.float32).tobytes()
        elif kind is TensorType.F16:
            packed[name] = array.astype(np.float16).tobytes()
        else:
            files[name] = directory / f"{name}.npy"
            np.save(files[name], array.astype(np.float32).reshape(-1, array.shape[-1]))
            jobs.append([str(files[name]), kind.value, kind.bytes_of(array.shape[-1])])
    if jobs:
        llama_cpp({"quantise": jobs})
    for name, file in files.items():
        packed[name] = np.load(file).tobytes()
        file.unlink()
    return packed


def forward_logits(
    model: Path,
    ids: Sequence[int],
    *,
    chunk: int = 512,
    num_ctx: int = 0,
    threads: int = 2,
    cache_type: str = "f16",
) -> Floats:
    """What the engine computes for every position, a prompt in chunks."""
    forward = Forward(model, read_header(model), threads=threads, num_ctx=num_ctx, cache_type=cache_type)
    forward.allocate(-(-len(ids) // forward.block_size))
    rows: list[Floats] = []
    for start in range(0, len(ids), chunk):
        part = ids[start : start + chunk]
        end = start + len(part)
        blocks = range(-(-end // forward.block_size))
        places = range(len(part))
        logits = forward(part, [start], [0, len(part)], blocks, [0, len(blocks)], places)
        rows.append(logits.copy())
    forward.close()
    return np.concatenate(rows)


@dataclass(frozen=True)
class Agreement:
    """Mean divergence of `other` from `reference`, and the share of positions whose likeliest token is the same."""

    divergence: float
    top: float


def agreement(reference: Floats, other: Floats) -> Agreement:
    divergence = 0.0
    for start in range(0, len(reference), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        first, second = log_probabilities(reference[part]), log_probabilities(other[part])
        divergence += float((np.exp(first) * (first - second)).sum())
    top = (reference.argmax(axis=-1) == other.argmax(axis=-1)).mean()
    return Agreement(divergence / len(reference), float(top))


_TOGETHER = 128
"""Positions compared at once: a large vocabulary's logits are many."""


def log_probabilities(logits: Floats) -> Floats:
    shifted: Floats = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def numbers_of(path: Path) -> dict[str, Floats]:
    """Every tensor's numbers by the `gguf` package; its dimensions the other way round than ggml's."""
    data = np.memmap(path, np.uint8, mode="r")
    found: dict[str, Floats] = {}
    for info in read_header(path).tensors:
        raw = np.asarray(data[info.offset : info.offset + info.size])
        found[info.name] = dequantize(raw, GGMLQuantizationType[info.type.name]).reshape(info.shape[::-1])
    return found


def requantise(source: Path, target: Path, kind_of: Callable[[TensorInfo], TensorType]) -> None:
    """The same model with its matrices in other types."""
    header = read_header(source, arrays=True)
    tensors = numbers_of(source)
    matrices = {info.name: info for info in header.tensors if len(info.shape) > 1}
    packed = quantise(target.parent, {name: (kind_of(info), tensors[name]) for name, info in matrices.items()})
    written = [
        Tensor(info.name, info.shape, kind_of(info), packed[info.name])
        if info.name in matrices
        else Tensor(info.name, info.shape, TensorType.F32, tensors[info.name].tobytes())
        for info in header.tensors
    ]
    kept = {key: list(value) if isinstance(value, tuple) else value for key, value in header.metadata.items()}
    del kept["general.architecture"]
    write_gguf(target, architecture=header.architecture, metadata=kept, tensors=written)  # type: ignore[arg-type]


def in_type(shipped: Path, kind: str, directory: Path) -> Path:
    """The shipped model (Q4_1) as it is, or in `directory` as Q4_K_M or in one type: written, if it is not there."""
    if kind == "Q4_1":
        return shipped
    path = directory / f"{kind}.gguf"
    if not path.is_file():
        written = path.with_suffix(".new")
        requantise(shipped, written, _q4_k_m if kind == "Q4_K_M" else lambda _: TensorType[kind])
        written.rename(path)
    return path


def _q4_k_m(tensor: TensorInfo) -> TensorType:
    """llama.cpp's mixture; rows that are no whole blocks of 256 take the nearest type of 32."""
    more = "attn_v" in tensor.name or "ffn_down" in tensor.name or "token_embd" in tensor.name
    if tensor.shape[0] % 256:
        return TensorType.Q8_0 if more else TensorType.Q5_0
    return TensorType.Q6_K if more and int(tensor.name.split(".")[1]) % 2 else TensorType.Q4_K


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A small model. `settings`: its `rope.*` and others; `extra`: tensors of its own; `experts` 0: none.

    `convolutions`: layers of lfm2 that convolve 3 tokens. `interval`: each so manieth layer of qwen35 attends.
    `additions`: numbers a token that each layer of gemma4 adds something of its own from; `keys_as_values`: it has no
    values. What settings say of each layer goes before what the recipe says of all.
    """

    family: str = "llama"
    kind: TensorType = TensorType.F32
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 64
    rotary: int | None = None
    hidden: int = 256
    feed_forward: int = 512
    tied: bool = False
    biases: bool = False
    experts: int = 0
    convolutions: Sequence[int] = ()
    interval: int = 4
    additions: int = 0
    keys_as_values: bool = False
    settings: Mapping[str, Value] = field(default_factory=dict)
    extra: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def sizes(self, layer: int) -> tuple[int, int, int, int]:
        """Elements of all heads of queries, of all heads of keys, of a head; and the width between gate and down."""

        def of(key: str, default: int) -> int:
            found = self.settings.get(key, default)
            found = found[layer] if isinstance(found, list) else found
            assert isinstance(found, int)
            return found

        near = of("attention.sliding_window_pattern", 0) and "attention.key_length_swa" in self.settings
        size = of("attention.key_length_swa", self.head_size) if near else self.head_size
        kv_heads = of("attention.head_count_kv", self.kv_heads)
        return self.heads * size, kv_heads * size, size, of("feed_forward_length", self.feed_forward)


VOCABULARY = 320
TAPS = 3
LINEAR = {"conv_kernel": 4, "state_size": 32, "group_count": 2, "time_step_rank": 4, "inner_size": 128}
"""Of qwen35, by what follows `ssm.`"""


def write_model(path: Path, recipe: Recipe, *, seed: int = 0) -> dict[str, Floats]:
    """Write it; gives the tensors as they were before they were packed.

    Rows of the head differ in size, so that the likeliest token is rarely a matter of the last bits.
    """
    random = np.random.default_rng(seed)
    matrices: dict[str, Floats] = {}
    vectors: dict[str, Floats] = {}

    def matrix(name: str, rows: int, columns: int, scale: float = 1.0, count: int = 0) -> None:
        shape = (count, rows, columns) if count else (rows, columns)
        matrices[f"{name}.weight"] = (random.standard_normal(shape) * scale / columns**0.5).astype(np.float32)

    def vector(name: str, size: int | tuple[int, ...], mean: float = 1.0, spread: float = 0.1) -> None:
        vectors[name] = (mean + spread * random.standard_normal(size)).astype(np.float32)

    def feed(block: str, width: int) -> None:
        count = recipe.experts
        if count and recipe.family == "gemma4":
            experts_beside(block)
            count = 0
        if recipe.family == "phi3":
            matrix(f"{block}.ffn_up", 2 * width, hidden)
            matrix(f"{block}.ffn_down", hidden, width, 0.7)
            return
        end = "_exps" if count else ""
        matrix(f"{block}.ffn_gate{end}", width, hidden, count=count)
        matrix(f"{block}.ffn_up{end}", width, hidden, count=count)
        matrix(f"{block}.ffn_down{end}", hidden, width, 0.7, count=count)
        if count:
            vectors[f"{block}.ffn_gate_inp.weight"] = random.standard_normal((count, hidden)).astype(np.float32) / 8
        if count and recipe.family == "gpt-oss":
            vector(f"{block}.ffn_gate_inp.bias", count, 0.0, 0.3)
            for part, size in (("gate", width), ("up", width), ("down", hidden)):
                vector(f"{block}.ffn_{part}_exps.bias", (count, size), 0.0, 0.3)

    def experts_beside(block: str) -> None:
        width, count = recipe.feed_forward, recipe.experts
        matrix(f"{block}.ffn_gate_up_exps", 2 * width, hidden, count=count)
        matrix(f"{block}.ffn_down_exps", hidden, width, 0.7, count=count)
        vectors[f"{block}.ffn_gate_inp.weight"] = random.standard_normal((count, hidden)).astype(np.float32) * 2
        vector(f"{block}.ffn_gate_inp.scale", hidden)
        vector(f"{block}.ffn_down_exps.scale", count, 1.0, 0.3)
        for name in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
            vector(f"{block}.{name}.weight", hidden)

    def convolution(block: str) -> None:
        matrix(f"{block}.shortconv.in_proj", 3 * hidden, hidden)
        matrix(f"{block}.shortconv.out_proj", hidden, hidden)
        vector(f"{block}.shortconv.conv.weight", (hidden, TAPS), 0.0, 0.7)

    def linear_attention(block: str) -> None:
        size, found = LINEAR["state_size"], LINEAR["inner_size"]
        channels, values = 2 * LINEAR["group_count"] * size + found, LINEAR["time_step_rank"]
        matrix(f"{block}.attn_qkv", channels, hidden)
        matrix(f"{block}.attn_gate", found, hidden)
        matrix(f"{block}.ssm_beta", values, hidden)
        matrix(f"{block}.ssm_alpha", values, hidden)
        matrix(f"{block}.ssm_out", hidden, found)
        vector(f"{block}.ssm_conv1d.weight", (channels, LINEAR["conv_kernel"]), 0.0, 0.7)
        vector(f"{block}.ssm_dt.bias", values, -2.0, 1.0)
        vectors[f"{block}.ssm_a"] = -np.exp(random.standard_normal(values)).astype(np.float32)
        vector(f"{block}.ssm_norm.weight", size)

    def attention(block: str, queries: int, keys: int, size: int) -> None:
        if recipe.family == "phi3":
            matrix(f"{block}.attn_qkv", queries + 2 * keys, hidden)
        else:
            matrix(f"{block}.attn_q", queries * (2 if recipe.family == "qwen35" else 1), hidden)
            matrix(f"{block}.attn_k", keys, hidden)
            if not recipe.keys_as_values:
                matrix(f"{block}.attn_v", keys, hidden)
        matrix(f"{block}.attn_output", hidden, queries, 0.7)
        if recipe.family in {"qwen3", "qwen3moe", "gemma3", "gemma4", "lfm2", "qwen35"}:
            mean = 0.3 if recipe.family == "gemma4" else 1.0  # whose scores nothing else scales
            vector(f"{block}.attn_q_norm.weight", size, mean)
            vector(f"{block}.attn_k_norm.weight", size, mean)

    def additions(block: str) -> None:
        matrix(f"{block}.inp_gate", recipe.additions, hidden)
        matrix(f"{block}.proj", hidden, recipe.additions)
        vector(f"{block}.post_norm.weight", hidden)

    hidden = recipe.hidden
    sizes = 0.35 * np.exp(1.5 * random.standard_normal((VOCABULARY, 1)))
    matrix("token_embd", VOCABULARY, hidden)
    matrices["token_embd.weight"] *= sizes.astype(np.float32) if recipe.tied else 16
    vector(f"{'token_embd_norm' if recipe.family == 'lfm2' else 'output_norm'}.weight", hidden)
    if not recipe.tied:
        matrix("output", VOCABULARY, hidden)
        matrices["output.weight"] *= sizes.astype(np.float32)
    if recipe.additions:
        numbers = recipe.layers * recipe.additions
        matrix("per_layer_token_embd", VOCABULARY, numbers)
        matrices["per_layer_token_embd.weight"] *= (numbers / recipe.additions) ** 0.5
        matrix("per_layer_model_proj", numbers, hidden)
        vector("per_layer_proj_norm.weight", recipe.additions)
    for layer in range(recipe.layers):
        block = f"blk.{layer}"
        queries, keys, size, width = recipe.sizes(layer)
        vector(f"{block}.attn_norm.weight", hidden)
        gemma, oss = recipe.family in {"gemma2", "gemma3", "gemma4"}, recipe.family == "gpt-oss"
        second = "post_attention_norm" if recipe.family in {"gpt-oss", "qwen35"} else "ffn_norm"
        vector(f"{block}.{second}.weight", hidden)
        if layer in recipe.convolutions:
            convolution(block)
        elif recipe.family == "qwen35" and (layer + 1) % recipe.interval:
            linear_attention(block)
        else:
            attention(block, queries, keys, size)
        feed(block, width)
        if recipe.additions:
            additions(block)
            vector(f"{block}.layer_output_scale.weight", 1, 0.9)
        if recipe.biases:
            for part, size in (("q", queries), ("k", keys), ("v", keys)):
                vector(f"{block}.attn_{part}.bias", size, 0.0, 0.3)
        if gemma:
            vector(f"{block}.post_attention_norm.weight", hidden)
            vector(f"{block}.post_ffw_norm.weight", hidden)
        if oss:
            vector(f"{block}.attn_output.bias", hidden, 0.0, 0.3)
            vector(f"{block}.attn_sinks.weight", recipe.heads, 0.0, 1.0)
    vectors |= {name: np.array(values, np.float32) for name, values in recipe.extra.items()}
    packed = quantise(path.parent, {name: (recipe.kind, array) for name, array in matrices.items()})
    tensors = [Tensor(name, array.shape[::-1], recipe.kind, packed[name]) for name, array in matrices.items()]
    tensors += [Tensor(name, array.shape[::-1], TensorType.F32, array.tobytes()) for name, array in vectors.items()]
    write_gguf(path, architecture=recipe.family, metadata=_metadata(recipe), tokens=_tokens(), tensors=tensors)
    return matrices | vectors


def _metadata(recipe: Recipe) -> dict[str, Value]:
    own: dict[str, Value] = {
        "block_count": recipe.layers,
        "context_length": 1024,
        "embedding_length": recipe.hidden,
        "feed_forward_length": recipe.feed_forward,
        "attention.head_count": recipe.heads,
        "attention.head_count_kv": recipe.kv_heads,
        "attention.key_length": recipe.head_size,
        "attention.value_length": recipe.head_size,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": recipe.rotary or recipe.head_size,
        "rope.freq_base": 10000.0,
        **recipe.settings,
    }
    if recipe.convolutions:
        heads = [0 if layer in recipe.convolutions else recipe.kv_heads for layer in range(recipe.layers)]
        own |= {"attention.head_count_kv": heads, "shortconv.l_cache": TAPS}
    if recipe.family == "qwen35":
        own |= {f"ssm.{key}": value for key, value in LINEAR.items()}
        own |= {"full_attention_interval": recipe.interval, "rope.dimension_sections": [8, 8, 8, 0]}
    if recipe.experts:
        own |= {
            "expert_count": recipe.experts,
            "expert_used_count": 2,
            "expert_feed_forward_length": recipe.feed_forward,
        }
    return {f"{recipe.family}.{key}": value for key, value in own.items()} | {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.scores": [0.0] * VOCABULARY,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - 259),
    }


def _tokens() -> list[str]:
    named = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return named + [f"t{place}" for place in range(VOCABULARY - len(named))]
