"""What the CPU engine can run: families, tensor types, tokenizers, machines. Pure; imports nothing heavy.

`why_not` is the rule for models, `why_not_machine` that for machines. Whatever they turn down, llama.cpp serves, and
their words are shown as the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum


class Rotary(Enum):
    """How a file keeps the two halves of a rotary pair: next to each other, or half a head apart."""

    INTERLEAVED = "interleaved"
    HALVES = "halves"


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture. `module` in `puna.engine.cpu.families` builds it; `rope_scaling`: the kinds it may name."""

    module: str
    rotary: Rotary
    rope_scaling: frozenset[str]


_NO_SCALING = frozenset({"none"})

FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", Rotary.INTERLEAVED, _NO_SCALING | {"linear", "yarn"}),
    "qwen2": Family("qwen2", Rotary.HALVES, _NO_SCALING | {"linear", "yarn"}),
    "qwen3": Family("qwen3", Rotary.HALVES, _NO_SCALING | {"linear", "yarn"}),
    "gemma3": Family("gemma3", Rotary.HALVES, _NO_SCALING | {"linear"}),
    "phi3": Family("phi3", Rotary.HALVES, _NO_SCALING | {"linear", "yarn", "longrope"}),
}
"""By `general.architecture`."""

TYPES: frozenset[str] = frozenset({
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1",
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
})  # fmt: skip
"""Tensor types that can be unpacked."""

TOKENIZERS: frozenset[str] = frozenset({"gpt2", "llama"})
"""`tokenizer.ggml.model`: byte-level BPE, and SentencePiece's BPE with scores."""

PRE_TOKENIZERS: frozenset[str] = frozenset({
    "llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "smaug-bpe", "dbrx",
    "gpt-2", "phi-2", "olmo", "mpt", "jais",
    "smollm", "starcoder", "refact", "command-r", "exaone", "codeshell",
    "qwen2", "deepseek-r1-qwen", "stablelm2", "megrez",
    "deepseek-v3",
    "tekken", "gpt-4o", "llama4",
})  # fmt: skip
"""`tokenizer.ggml.pre` of byte-level BPE: how text is cut into words before merging."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The processor, as the `platform` module names it, and the flags that the system tells (empty: it does not).

    `sockets`: Python has Unix sockets there.
    """

    system: str
    processor: str
    flags: frozenset[str] = frozenset()
    sockets: bool = True


def here() -> Machine:
    """This machine."""
    import platform
    import socket
    from pathlib import Path

    flags: frozenset[str] = frozenset()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                flags = frozenset(line.partition(":")[2].split())
                break
    return Machine(platform.system(), platform.machine().lower(), flags, hasattr(socket, "AF_UNIX"))


_COUNTS = (
    "attention.head_count",
    "attention.head_count_kv",
    "attention.sliding_window_pattern",
    "feed_forward_length",
)
"""What a file may say as one number, or as one for each layer."""


def why_not(architecture: str, types: Collection[str], metadata: Mapping[str, object] | None = None) -> str | None:
    """Why this engine cannot run such a file, in words; None if it can.

    `types`: names of the tensor types that occur. `metadata`: the header's scalars; without it they are not looked at.
    """
    return (
        _why_not_architecture(architecture)
        or _why_not_types(types)
        or (_why_not_metadata(architecture, metadata) if metadata is not None else None)
    )


def why_not_machine(machine: Machine) -> str | None:
    """Why this engine cannot run on such a machine, in words; None if it can: the processor is no reason."""
    if not machine.sockets:
        return f"the cpu engine speaks over a Unix socket, and Python has none on {machine.system}"
    return None


def _why_not_architecture(architecture: str) -> str | None:
    if architecture in FAMILIES:
        return None
    return f"the cpu engine has no family '{architecture}' (it has {', '.join(sorted(FAMILIES))})"


def _why_not_types(types: Collection[str]) -> str | None:
    unknown = sorted(set(types) - TYPES)
    return f"the cpu engine cannot unpack {', '.join(unknown)}" if unknown else None


def _why_not_metadata(architecture: str, metadata: Mapping[str, object]) -> str | None:
    family = FAMILIES[architecture]

    def of(key: str) -> object:
        return metadata.get(f"{architecture}.{key}")

    if of("expert_count"):
        return "the cpu engine does not run mixtures of experts"
    if any(not isinstance(of(key) or 0, int) for key in _COUNTS):
        return "the cpu engine needs layers of one shape"
    if architecture == "gemma3" and not of("attention.sliding_window"):
        return "the cpu engine needs the sliding window of the family 'gemma3'"
    if of("attention.causal") is False:
        return "the cpu engine runs causal attention only"
    if of("final_logit_softcapping") or of("attn_logit_softcapping"):
        return "the cpu engine has no soft capping of logits"
    scaling = of("rope.scaling.type")
    if scaling is not None and scaling not in family.rope_scaling:
        return f"the cpu engine has no rope scaling '{scaling}' for the family '{architecture}'"
    keys, values = of("attention.key_length"), of("attention.value_length")
    if keys != values:
        return "the cpu engine needs keys and values of one length"
    return _why_not_tokenizer(metadata)


def _why_not_tokenizer(metadata: Mapping[str, object]) -> str | None:
    model = metadata.get("tokenizer.ggml.model")
    if model not in TOKENIZERS:
        return f"the cpu engine has no tokenizer of the kind '{model}'"
    pre = metadata.get("tokenizer.ggml.pre")
    if model == "gpt2" and pre not in PRE_TOKENIZERS:
        return f"the cpu engine has no pre-tokenizer '{pre}'"
    return None
