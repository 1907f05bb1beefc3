"""SmolLM 3: Llama's shape, and every fourth layer is not told positions. No key of a file says so."""

from __future__ import annotations

from puna.engine.cpu.families.family import Family, Pairs

FAMILY = Family(architecture="smollm3", pairs=Pairs.NEIGHBOURS, unturned=4)
