"""LFM 2: short convolutions, gated before and behind, with attention in some layers between them.

Its last norm has the name of one over embeddings. Source: the LFM2 report (arXiv:2511.23404) and the public
configuration.
"""

from __future__ import annotations

from puna.engine.cpu.families.family import Family, Norms, Pairs

FAMILY = Family(
    architecture="lfm2",
    pairs=Pairs.HALVES,
    norms=Norms(output="token_embd_norm"),
    head_norms=True,
    convolutions=True,
)
