from __future__ import annotations

import pytest

from puna.engine.cpu.supported import PRE_TOKENIZERS, TYPES, Machine, here, why_not, why_not_machine

METADATA: dict[str, object] = {
    "llama.attention.head_count": 8,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "llama-bpe",
}


def test_a_plain_llama_runs() -> None:
    assert why_not("llama", TYPES, METADATA) is None
    assert why_not("llama", {"Q4_K", "F32"}, METADATA) is None


@pytest.mark.parametrize(("system", "processor"), [("Linux", "aarch64"), ("Darwin", "arm64"), ("Linux", "riscv64")])
def test_any_processor_will_do(system: str, processor: str) -> None:
    assert why_not_machine(Machine(system, processor)) is None


def test_a_machine_without_sockets_will_not() -> None:
    assert "socket" in (why_not_machine(Machine("Windows", "amd64", sockets=False)) or "")


def test_other_families_and_types_are_told_why() -> None:
    assert "mamba" in (why_not("mamba", {"F32"}) or "")
    assert "IQ1_S, TQ1_0" in (why_not("llama", {"F32", "TQ1_0", "IQ1_S"}) or "")


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("llama.expert_count", 8, "experts"),
        ("llama.attention.causal", False, "causal"),
        ("llama.rope.scaling.type", "longrope", "longrope"),
        ("llama.attention.head_count_kv", (8, 4, 8), "one shape"),
        ("llama.attention.key_length", 128, "one length"),
        ("llama.final_logit_softcapping", 30.0, "capping"),
        ("tokenizer.ggml.model", "bert", "bert"),
        ("tokenizer.ggml.pre", "superbpe", "superbpe"),
    ],
)
def test_what_the_header_says_can_be_a_reason(key: str, value: object, word: str) -> None:
    assert word in (why_not("llama", {"F32"}, METADATA | {key: value}) or "")


def test_gemma_needs_its_window() -> None:
    metadata = {"tokenizer.ggml.model": "llama"}
    assert "window" in (why_not("gemma3", {"F32"}, metadata) or "")
    assert why_not("gemma3", {"F32"}, metadata | {"gemma3.attention.sliding_window": 512}) is None


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("lfm2.shortconv.l_cache", 17, "16 tokens"),
        ("lfm2.attention.head_count", (8, 8), "one shape"),
        ("lfm2.attention.causal", False, "causal"),
        ("lfm2.embedding_length_out", 128, "logits"),
        ("lfm2.expert_count", 32, "experts"),
    ],
)
def test_a_family_with_convolutions_has_reasons_of_its_own(key: str, value: object, word: str) -> None:
    metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "lfm2", "lfm2.attention.head_count_kv": (0, 8)}
    assert why_not("lfm2", {"F32"}, metadata) is None
    assert word in (why_not("lfm2", {"F32"}, metadata | {key: value}) or "")


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("qwen35.ssm.conv_kernel", 17, "16 tokens"),
        ("qwen35.ssm.state_size", 48, "multiple of 32"),
        ("qwen35.ssm.state_size", 1024, "at most 512"),
        ("qwen35.attention.recurrent_layers", (True, False), "interval"),
        ("qwen35.attention.head_count_kv", (8, 0), "one shape"),
    ],
)
def test_a_family_with_linear_attention_has_reasons_of_its_own(key: str, value: object, word: str) -> None:
    metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen35", "qwen35.ssm.state_size": 128}
    assert why_not("qwen35", {"F32"}, metadata) is None
    assert word in (why_not("qwen35", {"F32"}, metadata | {key: value}) or "")


def test_this_machine_has_a_name() -> None:
    assert here().system
    assert here().processor == here().processor.lower()
    assert why_not_machine(here()) is None


def test_every_pre_tokenizer_has_its_rule() -> None:
    from puna.engine.cpu.words import WORD_RULES

    assert WORD_RULES.keys() == PRE_TOKENIZERS
