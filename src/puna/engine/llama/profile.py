"""What both engines over llama.cpp can do, and what they cost."""

from __future__ import annotations

from dataclasses import replace

from puna.engine.engine import Profile
from puna.engine.memory import Costs
from puna.engine.runner import Feature

COSTS = Costs(base=37 << 20, weights=1.0, token=172, batch=64, most=1 << 20, value=None, windows=True)
"""Measured (`bench/memory.py`), on a processor, for 28 models of two layers to 8 billion weights: within 5 % of all
that take 160 MiB or more, and 14 % more than the smallest take.
"""

WHEEL = Profile(
    name="llama",
    what="llama.cpp from a wheel",
    merit="it runs what the engines before it do not",
    machines="any with a wheel",
    families="all of llama.cpp's",
    types="all",
    seeds="for Q4_0, Q4_1, Q8_0 on a CPU; else `x-puna-seed: best-effort`",
    slots=4,
    features=frozenset(Feature) - {Feature.PREDICTION},
    cache_types=frozenset({"f16", "q8_0", "q4_0"}),
    projectors=1,
    adapters=True,
    gpu=True,
)

BINARY = replace(
    WHEEL,
    name="llama-server",
    what="a native llama.cpp binary (`PUNA_LLAMA_SERVER`)",
    machines="whatever the binary is built for",
    seeds="as `llama`, where `num_gpu` is 0",
)
