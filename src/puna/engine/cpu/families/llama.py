"""Llama 1 to 3, Mistral, SmolLM2 and all that keep their shape."""

from __future__ import annotations

from puna.engine.cpu.families.family import Family, Pairs

FAMILY = Family(architecture="llama", pairs=Pairs.NEIGHBOURS)
