"""How near the engine is to the float32 computation on the shipped model, in four types, and how near llama.cpp is.

The reference is `exact` mode, which is held against plain NumPy first. Texts are the language's own documentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pydoc_data import topics

import numpy as np
import pytest

from puna.engine.cpu.tokenizer import Tokenizer
from puna.model.gguf import read_header
from real.cpu.models import agreement, forward_logits, in_type, log_probabilities, native_logits
from real.cpu.reference import Reference

SCORED = 1500
LEAD = 36
"""Tokens at the start that are read and not scored."""
PLAIN = 256
"""Positions that plain NumPy computes."""


@pytest.fixture(scope="module")
def ids(smollm2_gguf: Path) -> Sequence[int]:
    text = "\n\n".join(str(topics.topics[name]) for name in ("assert", "class", "exceptions", "formatstrings", "if"))
    found = Tokenizer(read_header(smollm2_gguf, arrays=True)).encode(text, special=False, bos=False)
    assert len(found) >= LEAD + SCORED
    return found[: LEAD + SCORED]


@pytest.fixture(params=["Q4_1", "Q4_K_M", "Q8_0", "BF16"])
def model(request: pytest.FixtureRequest, smollm2_gguf: Path, tmp_path: Path) -> Path:
    return in_type(smollm2_gguf, request.param, tmp_path)


@pytest.mark.timeout(300)
def test_as_near_to_the_float32_computation_as_llama_cpp(model: Path, ids: Sequence[int], tmp_path: Path) -> None:
    exact = forward_logits(model, ids, exact=True)[LEAD:]
    ours = agreement(exact, forward_logits(model, ids)[LEAD:])
    theirs = agreement(exact, native_logits(model, ids, tmp_path)[LEAD:])
    assert len(exact) == SCORED
    assert ours.divergence <= theirs.divergence + 0.001
    assert ours.top >= theirs.top - 0.01


def test_log_probabilities_are_llama_cpps_on_bf16(smollm2_gguf: Path, ids: Sequence[int], tmp_path: Path) -> None:
    """In the mean: llama.cpp rounds what it multiplies to bf16, and at places errs by more than that."""
    model = in_type(smollm2_gguf, "BF16", tmp_path)
    ours = log_probabilities(forward_logits(model, ids[:PLAIN]))
    theirs = log_probabilities(native_logits(model, ids[:PLAIN], tmp_path))
    places, likeliest, given = np.arange(PLAIN - 1), theirs.argmax(axis=-1)[:-1], np.asarray(ids[1:PLAIN])
    for tokens in (likeliest, given):
        assert np.abs(ours[places, tokens] - theirs[places, tokens]).mean() <= 0.02


def test_exact_mode_is_the_float32_computation(smollm2_gguf: Path, ids: Sequence[int]) -> None:
    expected = Reference(smollm2_gguf).logits(ids[:PLAIN])
    assert agreement(expected, forward_logits(smollm2_gguf, ids[:PLAIN], exact=True)).top >= 0.999
