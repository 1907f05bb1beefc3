"""Qwen 3 with experts: the shares of those that a row takes sum to 1."""

from __future__ import annotations

from puna.engine.cpu.families.family import Experts, Family, Pairs

FAMILY = Family(
    architecture="qwen3moe",
    pairs=Pairs.HALVES,
    head_norms=True,
    experts=Experts(renormalise=True),
)
