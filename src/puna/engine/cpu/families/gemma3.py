"""Gemma 3: norms on both sides of every part and over each head, five layers with a window to one that sees all.

Layers with a window turn by a base of their own, unscaled. Source: the Gemma 3 report (arXiv:2503.19786).
"""

from __future__ import annotations

from puna.engine.cpu.families.family import Activation, Family, Norms, Pairs, Windows

FAMILY = Family(
    architecture="gemma3",
    pairs=Pairs.HALVES,
    rope_scaling=frozenset({"none", "linear"}),
    norms=Norms(after_attention="post_attention_norm", after_feed="post_ffw_norm"),
    head_norms=True,
    windows=Windows(period=6, base=10000.0),
    activation=Activation.GELU,
    embedding_root=True,
    wide=62,
)
