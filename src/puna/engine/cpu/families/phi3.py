"""Phi 3 and 4: fused tensors, and factors of their own beyond the first context.

Files name a window that their models were not all trained with; like llama.cpp this engine does not apply it.
"""

from __future__ import annotations

from puna.engine.cpu.families.family import Family, Pairs

FAMILY = Family(
    architecture="phi3",
    pairs=Pairs.HALVES,
    rope_scaling=frozenset({"none", "linear", "yarn", "longrope"}),
)
