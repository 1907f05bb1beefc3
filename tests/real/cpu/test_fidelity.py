"""How near the engine is to the float32 computation on the shipped model, in four types, and how near llama.cpp is.

The reference is plain NumPy over exactly dequantised weights. Texts are the language's own documentation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics

import numpy as np
import pytest

from puna.engine.cpu.tokenizer import Tokenizer
from puna.engine.llama.engine import LlamaEngine
from puna.engine.runner import LoadOptions
from puna.model.gguf import read_header
from puna.settings import Settings
from real.cpu.conftest import InType
from real.cpu.models import Floats, agreement, forward_logits, log_probabilities, native_logits
from real.cpu.reference import Reference
from real.cpu.running import files, started

SCORED = int(os.environ.get("PUNA_TEST_SCORED", "500"))
"""Tokens whose distributions are compared, of more than one piece of a prompt; the promise is about 1,500."""
LEAD = 36
"""Tokens at the start that are read and not scored."""
PLAIN = 256
"""Positions that both engines are compared at in bfloat16."""
SCORED_BY_BOTH = 128
"""Tokens whose log-probabilities both engines are asked for."""


@pytest.fixture(scope="module")
def ids(smollm2_gguf: Path) -> Sequence[int]:
    text = "\n\n".join(str(topics.topics[name]) for name in ("assert", "class", "exceptions", "formatstrings", "if"))
    found = Tokenizer(read_header(smollm2_gguf, arrays=True)).encode(text, special=False, bos=False)
    assert len(found) >= LEAD + SCORED
    return found[: LEAD + SCORED]


@pytest.fixture(params=["Q4_1", "Q4_K_M", "Q8_0", "BF16"])
def model(request: pytest.FixtureRequest, shipped_in: InType) -> Path:
    return shipped_in(request.param)


@pytest.mark.timeout(300)
def test_as_near_to_the_float32_computation_as_llama_cpp(model: Path, ids: Sequence[int], tmp_path: Path) -> None:
    exact = Reference(model).logits(ids)[LEAD:]
    ours = agreement(exact, forward_logits(model, ids)[LEAD:])
    theirs = agreement(exact, native_logits(model, ids, tmp_path)[LEAD:])
    assert len(exact) == SCORED
    assert ours.divergence <= theirs.divergence + 0.001
    assert ours.top >= theirs.top - 0.01


@dataclass(frozen=True)
class Distance:
    """Absolute differences of log-probabilities, natural: over all that were compared, and at the worst hundredth."""

    mean: float
    worst: float


def distances(one: Floats, other: Floats, ids: Sequence[int]) -> Mapping[str, Distance]:
    """Of the tokens of the text, of the likeliest, and of the twenty likeliest by `other`."""
    likely = np.argsort(other, axis=-1)[:, ::-1]
    compared = {"given": np.asarray(ids[1:])[:, None], "likeliest": likely[:-1, :1], "twenty": likely[:-1, :20]}
    found = {}
    for name, tokens in compared.items():
        difference = np.abs(np.take_along_axis(one[:-1] - other[:-1], tokens, axis=-1))
        found[name] = Distance(float(difference.mean()), float(np.quantile(difference, 0.99)))
    return found


def test_log_probabilities_are_llama_cpps_on_bf16(shipped_in: InType, ids: Sequence[int], tmp_path: Path) -> None:
    """Within 0.02 in the mean, and as near as llama.cpp's own are to each other when it takes the tokens one by one.

    More cannot be had from anyone: it rounds to bf16 what it multiplies, and which way a number is rounded depends on
    the order of a sum. Single ones of its own differ by 0.1 and more.
    """
    model = shipped_in("BF16")
    ours = log_probabilities(forward_logits(model, ids[:PLAIN]))
    together, single = (
        log_probabilities(native_logits(model, ids[:PLAIN], tmp_path, at_once=many)) for many in (PLAIN, 1)
    )
    own = distances(single, together, ids[:PLAIN])
    for theirs in (together, single):
        for name, distance in distances(ours, theirs, ids[:PLAIN]).items():
            assert distance.mean <= 0.02, name
            assert distance.mean <= 1.25 * own[name].mean, name
            assert distance.worst <= 1.5 * own[name].worst, name


async def test_log_probabilities_are_the_llama_engines_on_bf16(
    shipped_in: InType, ids: Sequence[int], tmp_path: Path
) -> None:
    """The same by what the two engines tell of the same tokens, twenty alternatives with each."""
    model = shipped_in("BF16")
    scored = ids[:SCORED_BY_BOTH]
    async with started(model, tmp_path / "store", slots=4) as runner:
        ours = await runner.score(scored, top=20)
    llama = await LlamaEngine(Settings(models=Path("none"))).start(files(model), LoadOptions(num_ctx=512, slots=4))
    try:
        theirs = await llama.score(scored, top=20)
    finally:
        await llama.close()
    assert np.mean([abs(mine[0] - other[0]) for mine, other in zip(ours, theirs, strict=True)]) <= 0.02
    differences = []
    for (_, mine), (_, other) in zip(ours, theirs, strict=True):
        known = {candidate.token: candidate.logprob for candidate in mine}
        differences += [abs(known[one.token] - one.logprob) for one in other if one.token in known]
    # The twentieth of one may be the twenty-first of the other.
    assert len(differences) >= 0.95 * 20 * len(ours)
    assert np.mean(differences) <= 0.02
