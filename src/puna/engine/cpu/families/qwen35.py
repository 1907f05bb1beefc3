"""Qwen 3.5, dense: linear attention by a gated delta rule in three layers of four, gated attention in the fourth.

Its second norm has the name that Gemma's files give to the one behind attention. Text turns all parts of a head by one
position, so the sections of its rope say nothing here. Source: Gated Delta Networks (arXiv:2412.06464) and the public
configuration.
"""

from __future__ import annotations

from puna.engine.cpu.families.family import Family, Linear, Norms, Pairs

FAMILY = Family(
    architecture="qwen35",
    pairs=Pairs.HALVES,
    norms=Norms(feed="post_attention_norm"),
    head_norms=True,
    linear=Linear(period=4),
    gated=True,
)
