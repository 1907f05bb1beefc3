"""Gemma 4: Gemma 3's norms, layers of two shapes, keys that later layers read again, embeddings of each layer's own.

Layers with a window have smaller heads than those that see all, and turn by a base of their own. Scores are not scaled,
values are normed without weights, and where a layer has no values its keys, before their norm, are those. Source: the
public configuration and llama.cpp's reading of its files.
"""

from __future__ import annotations

from puna.engine.cpu.families.family import Activation, Caps, Experts, Family, Norms, Pairs, Windows

FAMILY = Family(
    architecture="gemma4",
    pairs=Pairs.HALVES,
    rope_scaling=frozenset({"none", "linear"}),
    norms=Norms(after_attention="post_attention_norm", after_feed="post_ffw_norm"),
    head_norms=True,
    value_norms=True,
    own_shapes=True,
    windows=Windows(period=6, base=10000.0),
    caps=Caps(attention=0.0, logits=30.0),
    activation=Activation.GELU,
    experts=Experts(renormalise=True, beside=True),
    embedding_root=True,
    unscaled=True,
)
