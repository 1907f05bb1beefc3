"""Granite 3 and 4, dense: factors on embeddings, residuals, attention and logits, which their files name."""

from __future__ import annotations

from puna.engine.cpu.families.family import Family, Pairs

FAMILY = Family(architecture="granite", pairs=Pairs.NEIGHBOURS, scales=True)
