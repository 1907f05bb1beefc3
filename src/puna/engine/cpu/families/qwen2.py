"""Qwen 2 and 2.5: biases on queries, keys and values, which their files hold."""

from __future__ import annotations

from puna.engine.cpu.families.family import Family, Pairs

FAMILY = Family(architecture="qwen2", pairs=Pairs.HALVES)
