"""gpt-oss: experts with biases and a clamped gate, sinks in attention, every other layer with a window.

Its second norm has the name that Gemma's files give to the one behind attention. Source: the model card
(arXiv:2508.10925) and the public configuration.
"""

from __future__ import annotations

from puna.engine.cpu.families.family import Activation, Experts, Family, Norms, Pairs, Windows

FAMILY = Family(
    architecture="gpt-oss",
    pairs=Pairs.HALVES,
    norms=Norms(feed="post_attention_norm"),
    sinks=True,
    windows=Windows(period=2),
    activation=Activation.CLAMPED_SWIGLU,
    experts=Experts(renormalise=True),
)
