"""The families that the cpu engine runs, one file each: a table of what sets it apart. Pure; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping

from puna.engine.cpu.families import (
    gemma2,
    gemma3,
    gemma4,
    gpt_oss,
    granite,
    lfm2,
    llama,
    phi3,
    qwen2,
    qwen3,
    qwen3moe,
    qwen35,
    smollm3,
)
from puna.engine.cpu.families.family import Family

FAMILIES: Mapping[str, Family] = {
    module.FAMILY.architecture: module.FAMILY
    for module in (
        gemma2,
        gemma3,
        gemma4,
        gpt_oss,
        granite,
        lfm2,
        llama,
        phi3,
        qwen2,
        qwen3,
        qwen35,
        qwen3moe,
        smollm3,
    )
}
"""By `general.architecture`."""
