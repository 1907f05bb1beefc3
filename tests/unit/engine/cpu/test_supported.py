from __future__ import annotations

import pytest

from puna.engine.cpu.supported import PRE_TOKENIZERS, TYPES, Machine, here, why_not

PC = Machine("Linux", "x86_64", frozenset({"avx2", "fma"}))
METADATA: dict[str, object] = {
    "llama.attention.head_count": 8,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "llama-bpe",
}


def test_a_plain_llama_on_a_pc_runs() -> None:
    assert why_not("llama", TYPES, PC, METADATA) is None
    assert why_not("llama", {"Q4_K", "F32"}, Machine("Windows", "amd64"), METADATA) is None


@pytest.mark.parametrize(
    ("machine", "word"),
    [
        (Machine("Linux", "aarch64"), "aarch64"),
        (Machine("Darwin", "arm64"), "arm64"),
        (Machine("Darwin", "x86_64"), "Darwin"),
        (Machine("Linux", "x86_64", frozenset({"sse4_2"})), "AVX2"),
    ],
)
def test_other_machines_are_told_why(machine: Machine, word: str) -> None:
    assert word in (why_not("llama", {"F32"}, machine) or "")


def test_other_families_and_types_are_told_why() -> None:
    assert "mamba" in (why_not("mamba", {"F32"}, PC) or "")
    assert "IQ1_S, TQ1_0" in (why_not("llama", {"F32", "TQ1_0", "IQ1_S"}, PC) or "")


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
    assert word in (why_not("llama", {"F32"}, PC, METADATA | {key: value}) or "")


def test_gemma_needs_its_window() -> None:
    metadata = {"tokenizer.ggml.model": "llama"}
    assert "window" in (why_not("gemma3", {"F32"}, PC, metadata) or "")
    assert why_not("gemma3", {"F32"}, PC, metadata | {"gemma3.attention.sliding_window": 512}) is None


def test_this_machine_has_a_name() -> None:
    assert here().system
    assert here().processor == here().processor.lower()


def test_every_pre_tokenizer_has_its_rule() -> None:
    from puna.engine.cpu.words import WORD_RULES

    assert WORD_RULES.keys() == PRE_TOKENIZERS
