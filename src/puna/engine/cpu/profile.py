"""What the cpu engine can do, what it costs, and which of its answers are the same."""

from __future__ import annotations

from puna.engine.cpu.families import FAMILIES
from puna.engine.cpu.supported import TYPES
from puna.engine.engine import Profile
from puna.engine.memory import Costs
from puna.engine.runner import Feature

BITS = 1
"""Raised with every change after which a byte of some answer may differ. Processor, threads and company change none."""

CACHE_TYPES = frozenset({"f16", "q8_0"})
"""What its cache can be; f16 when nothing is said. A model that is to have another goes to llama.cpp."""

FEATURES = frozenset(
    {
        Feature.CONSTRAINT,
        Feature.LOGPROBS,
        Feature.LOGIT_BIAS,
        Feature.MIROSTAT,
        Feature.SCORE,
        Feature.PREDICTION,
    }
)
"""Of these PREDICTION only as long as tokens are guessed at all (`Settings.speculation`)."""

COSTS = Costs(base=32 << 20, weights=1.05, token=224, batch=64, value=None, keyless=2.0, apart=True)
"""Measured (`bench/memory.py`): within 8 % for 28 models, of two layers to 8 billion weights, their caches included.

`batch` is not how many tokens it computes at once, but what makes up for the rooms of a step.
"""

MOST_ROWS = 1024
"""Tokens of one step at most: more would take memory and be no faster."""

PROFILE = Profile(
    name="cpu",
    what="Puna's own engine, a small native library",
    merit="it is the faster one on a processor, and its seeds are exact",
    machines="any processor with Unix sockets (Linux, macOS)",
    families=", ".join(sorted(FAMILIES)),
    types=" ".join(sorted(TYPES)),
    seeds="always: in any company, on every processor, with any number of threads",
    slots=16,
    features=FEATURES,
    cache_types=CACHE_TYPES,
    without_effect=("main_gpu", "use_mmap", "flash_attention"),
)
