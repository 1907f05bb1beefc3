"""Adapters as PEFT writes them (LoRA): two small matrices for each weight that is changed, by llama.cpp's names.

What a weight gains is B·A·scale, and PEFT has a scale for each module; a GGUF has one `alpha` for all, which is divided
by each rank. What is left of a module's own scale goes into its B.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from puna.convert.families import FAMILIES, Conversion, Numbers, interleaved_heads
from puna.convert.safetensors import Tensor
from puna.convert.source import Published, settings
from puna.convert.writer import Made, MetadataEntry
from puna.errors import ModelFileError, Unsupported
from puna.model.ggml import TensorType

CONFIG = "adapter_config.json"

_NAME = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")


@dataclass(frozen=True, slots=True)
class AdaptedBase:
    """What has to be known of the model that an adapter is for."""

    architecture: str
    heads: int
    heads_kv: int


@dataclass(slots=True)
class _Pair:
    module: str
    matrices: dict[str, Tensor] = field(default_factory=dict)


def convert_adapter(
    directory: Path, tensors: Mapping[str, Tensor], base: AdaptedBase
) -> tuple[dict[str, MetadataEntry], list[Made]]:
    """What is to be written. Unsupported: another kind of adapter, of another family, or one that changes more."""
    family = next((one for one in FAMILIES.values() if one.architecture == base.architecture), None)
    if family is None:
        known = ", ".join(one.architecture for one in FAMILIES.values())
        raise Unsupported(
            f"safetensors adapters for '{base.architecture}' are not converted by Puna ({known} are)", param="adapters"
        )
    config = settings(directory, CONFIG)
    _check(config)
    alpha = config.number("lora_alpha", 8.0)
    if not math.isfinite(alpha) or alpha == 0:
        raise ModelFileError(f"{CONFIG}: lora_alpha is {alpha:g}, by which nothing can be scaled")
    pairs = _pairs(tensors, family)
    alphas = _alphas(config, [pair.module for pair in pairs.values()])
    outputs: list[Made] = []
    for target, pair in pairs.items():
        outputs += _made(target, pair, base, alphas.get(pair.module, alpha) / alpha, config.said("use_rslora"))
    return {
        "general.architecture": base.architecture,
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
    }, outputs


def _check(config: Published) -> None:
    if not config.values:
        raise Unsupported(f"{CONFIG} is needed beside an adapter's safetensors", param="adapters")
    kind = config.text("peft_type")
    if kind != "LORA":
        raise Unsupported(f"an adapter of the kind '{kind}' is not converted: only LoRA is", param="adapters")
    for name in ("use_dora", "fan_in_fan_out", "lora_bias"):
        if config.said(name):
            raise Unsupported(f"an adapter with {name} is not converted", param="adapters")
    if config.text("bias") not in {None, "none"}:
        raise Unsupported(f"an adapter that changes biases ({config.text('bias')}) is not converted", param="adapters")
    for name in ("modules_to_save", "layer_replication", "trainable_token_indices"):
        if config.values.get(name):
            raise Unsupported(f"an adapter with {name} is not converted: it changes whole weights", param="adapters")


def _pairs(tensors: Mapping[str, Tensor], family: Conversion) -> dict[str, _Pair]:
    """By what they change, in llama.cpp's words."""
    found: dict[str, _Pair] = {}
    for tensor in tensors.values():
        match = _NAME.fullmatch(tensor.name)
        module = match[1] if match is not None else ""
        target = family.target(f"{module}.weight") or family.target(f"model.{module}.weight")
        if match is None or not target or target == "token_embd.weight" or "norm" in target:
            raise Unsupported(f"the adapter's tensor '{tensor.name}' is none that can be converted", param="adapters")
        pair = found.setdefault(target, _Pair(module))
        if pair.matrices.setdefault(match[2], tensor) is not tensor:
            raise ModelFileError(f"the adapter changes {target} twice")
    if not found:
        raise ModelFileError("the adapter holds no tensors")
    return found


def _alphas(config: Published, modules: list[str]) -> dict[str, float]:
    """The modules that have an `alpha` of their own."""
    found: dict[str, float] = {}
    pattern = Published(f"{CONFIG}: alpha_pattern", config.object("alpha_pattern"))
    for key in pattern.values:
        meant = [module for module in modules if module == key or module.endswith(f".{key}")]
        if not meant:
            raise Unsupported(f"{CONFIG}: alpha_pattern {key[:60]!r} names no module of it", param="adapters")
        found |= dict.fromkeys(meant, pattern.number(key))
    return found


def _made(target: str, pair: _Pair, base: AdaptedBase, own: float, by_root: bool) -> list[Made]:
    """`own`: the module's alpha by that of all. `by_root`: it is divided by the root of its rank, not by its rank."""
    down, up = pair.matrices.get("A"), pair.matrices.get("B")
    if down is None or up is None:
        raise ModelFileError(f"the adapter has one of two matrices for {target}")
    if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != up.shape[1] or not down.shape[0]:
        raise ModelFileError(f"the adapter's matrices for {target} do not fit: {down.shape} and {up.shape}")
    factor = np.float32(own * (math.sqrt(down.shape[0]) if by_root else 1.0))

    def scaled() -> Numbers:
        numbers = interleaved_heads(target, up.numbers(), base.architecture, base.heads, base.heads_kv)
        return numbers if factor == 1 else np.ascontiguousarray(numbers * factor)

    return [
        Made(f"{target}.lora_a", down.shape, TensorType.F32, down.numbers),
        Made(f"{target}.lora_b", up.shape, TensorType.F32, scaled),
    ]
