"""Gemma 2: norms on both sides of every part, capped scores and logits, every other layer with a window.

Source: the Gemma 2 report (arXiv:2408.00118).
"""

from __future__ import annotations

from puna.engine.cpu.families.family import Activation, Caps, Family, Norms, Pairs, Windows

FAMILY = Family(
    architecture="gemma2",
    pairs=Pairs.HALVES,
    norms=Norms(after_attention="post_attention_norm", after_feed="post_ffw_norm"),
    windows=Windows(period=2, size=4096),
    caps=Caps(attention=50.0, logits=30.0),
    activation=Activation.GELU,
    embedding_root=True,
    wide=46,
)
