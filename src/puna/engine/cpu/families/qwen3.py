"""Qwen 3: a norm over each head of queries and keys, before they are turned."""

from __future__ import annotations

from puna.engine.cpu.families.family import Family, Pairs

FAMILY = Family(architecture="qwen3", pairs=Pairs.HALVES, head_norms=True)
