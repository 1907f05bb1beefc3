"""Roster: the engines that there are, by name, in the order in which `auto` prefers them. It imports none of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """One engine. `factory`: `module:class`, with a class method `of(Settings)`. `auto`: taken without being named."""

    name: str
    factory: str
    auto: bool = True


ROSTER: tuple[RosterEntry, ...] = (
    RosterEntry("cpu", "puna.engine.cpu.client:CpuEngine"),
    RosterEntry("llama", "puna.engine.llama.engine:LlamaEngine"),
    RosterEntry("llama-server", "puna.engine.llama.engine:LlamaServerEngine", auto=False),
    RosterEntry("scripted", "puna.engine.scripted:ScriptedEngine", auto=False),
)

NAMES: tuple[str, ...] = tuple(entry.name for entry in ROSTER)
