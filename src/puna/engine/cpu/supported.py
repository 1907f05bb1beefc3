"""What the CPU engine can run: families, tensor types, tokenizers, machines. Pure; imports nothing heavy.

`why_not` is the rule for models, `why_not_machine` that for machines. Whatever they turn down, llama.cpp serves, and
their words are shown as the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from puna.engine.cpu.families import FAMILIES
from puna.engine.cpu.families.family import Family

TYPES: frozenset[str] = frozenset({
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1",
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4",
})  # fmt: skip
"""Tensor types that can be packed."""

TOKENIZERS: frozenset[str] = frozenset({"gpt2", "llama", "gemma4"})
"""`tokenizer.ggml.model`: byte-level BPE, SentencePiece's BPE with scores, and Gemma 4's over its pieces."""

PRE_TOKENIZERS: frozenset[str] = frozenset({
    "llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2", "smaug-bpe", "dbrx",
    "gpt-2", "phi-2", "olmo", "mpt", "jais",
    "smollm", "starcoder", "refact", "command-r", "exaone", "codeshell",
    "qwen2", "qwen35", "deepseek-r1-qwen", "stablelm2", "megrez",
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

    if of("expert_count") and family.experts is None:
        return f"the cpu engine runs no mixtures of experts of the family '{architecture}'"
    if of("expert_shared_count") or of("expert_shared_feed_forward_length"):
        return "the cpu engine has no experts that every token takes"
    if any(not isinstance(of(key) or 0, int) for key in _COUNTS if not _may_differ(family, key)):
        return "the cpu engine needs layers of one shape"
    if of("embedding_length_out"):
        return "the cpu engine gives logits, and this model something else"
    if of("attention.recurrent_layers") is not None:
        return "the cpu engine needs layers of linear attention at a fixed interval"
    taps = of("shortconv.l_cache") or of("ssm.conv_kernel")
    if isinstance(taps, int) and taps > MOST_TAPS:
        return f"the cpu engine has convolutions over at most {MOST_TAPS} tokens, not {taps}"
    if family.windows is not None and family.windows.size is None and not of("attention.sliding_window"):
        return f"the cpu engine needs the sliding window of the family '{architecture}'"
    if of("attention.causal") is False:
        return "the cpu engine runs causal attention only"
    if family.caps is None and (of("final_logit_softcapping") or of("attn_logit_softcapping")):
        return f"the cpu engine has no soft capping of logits for the family '{architecture}'"
    if not family.scales and any(of(key) not in {None, 0.0, 1.0} for key in _SCALES):
        return f"the cpu engine knows no scales of the family '{architecture}'"
    scaling = of("rope.scaling.type")
    if scaling is not None and scaling not in family.rope_scaling:
        return f"the cpu engine has no rope scaling '{scaling}' for the family '{architecture}'"
    if any(of(f"attention.key_length{end}") != of(f"attention.value_length{end}") for end in ("", "_swa")):
        return "the cpu engine needs keys and values of one length"
    if metadata.get("tokenizer.ggml.suppress_tokens"):
        return "the cpu engine suppresses no tokens"
    return _why_not_sizes(of) or _why_not_tokenizer(metadata)


def _may_differ(family: Family, key: str) -> bool:
    """Whether layers of this family may differ in that. What else differs, the file's reader says."""
    if family.own_shapes:
        return key != "attention.head_count"
    return family.convolutions and key == "attention.head_count_kv"


_SCALES = ("embedding_scale", "residual_scale", "logit_scale")


def _why_not_sizes(of: Callable[[str], object]) -> str | None:
    """Whatever is no number is left to the reader of the file, which says so."""
    hidden, heads, head = of("embedding_length"), of("attention.head_count"), of("attention.key_length")
    if head is None and isinstance(hidden, int) and isinstance(heads, int) and heads:
        head = hidden // heads
    widths = {
        "embeddings": hidden,
        "all heads": head * heads if isinstance(head, int) and isinstance(heads, int) else None,
        "states": of("ssm.state_size"),
        "a feed-forward": of("expert_feed_forward_length") or of("feed_forward_length"),
    }
    for what, width in widths.items():
        if isinstance(width, int) and width % GROUP:
            return f"the cpu engine needs {what} of a multiple of {GROUP}, not {width}"
    if isinstance(head, int) and head % 2:
        return f"the cpu engine needs heads of an even number, not {head}"
    for size in (head, of("ssm.state_size")):
        if isinstance(size, int) and size > MOST_HEAD:
            return f"the cpu engine needs heads of at most {MOST_HEAD}, not {size}"
    return None


GROUP = 32
MOST_HEAD = 512
MOST_TAPS = 16
"""What the library's tiles are made of, the longest head that it holds, and the longest convolution."""


def _why_not_tokenizer(metadata: Mapping[str, object]) -> str | None:
    model = metadata.get("tokenizer.ggml.model")
    if model not in TOKENIZERS:
        return f"the cpu engine has no tokenizer of the kind '{model}'"
    pre = metadata.get("tokenizer.ggml.pre")
    if model == "gpt2" and pre not in PRE_TOKENIZERS:
        return f"the cpu engine has no pre-tokenizer '{pre}'"
    return None
