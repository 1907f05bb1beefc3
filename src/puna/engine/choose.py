"""Which engine runs a model. Pure: sees Circumstances; probes no machine and imports no engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from puna.engine.cpu.supported import Machine, why_not
from puna.errors import Unsupported

EngineSetting: TypeAlias = Literal["auto", "cpu", "llama", "llama-server", "scripted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is known of the model, the request and the machine.

    `wish`: the setting. `engines`: those that are installed here. `metadata`: the header's. `embedding`: loaded to
    embed. `gpu_layers`: what the request says of offloading, None if nothing. `parallel`: how many requests at once
    the operator asked for, 0 if he did not say. `need`: bytes that the cpu engine would take; `room`: bytes that could
    be had for models, None if nobody knows.
    """

    wish: EngineSetting
    engines: frozenset[str]
    machine: Machine
    architecture: str
    tensor_types: frozenset[str]
    metadata: Mapping[str, object] = field(default_factory=dict)
    projectors: int = 0
    adapters: int = 0
    embedding: bool = False
    gpu_layers: int | None = None
    parallel: int = 0
    need: int = 0
    room: int | None = None


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine that will run a model, and why.

    `reason` is shown to users. `slots`: how many requests at once the engine does well.

    `instead`: the engine to turn to should this one turn out not to load the model; None where one was named.
    """

    engine: str
    reason: str
    slots: int
    instead: str | None = None


SLOTS = {"cpu": 16}
DEFAULT_SLOTS = 4
MANY = 16
"""Requests at once from which on the cpu engine is the faster one; alone, llama.cpp is (docs/performance.md)."""


def choose(facts: Circumstances) -> EngineChoice:
    """The engine that was named, or of those installed the faster one that can. Unsupported says why none can."""
    if facts.wish != "auto":
        return _named(facts)
    objection = _cpu(facts) or _memory(facts)
    if objection is None and (facts.parallel >= MANY or "llama" not in facts.engines):
        choice = _choice("cpu", f"it knows {facts.architecture}, and is the faster one for many requests at once")
        return replace(choice, instead="llama") if "llama" in facts.engines else choice
    if "llama" not in facts.engines:
        raise Unsupported(f"no engine can run this model here: cpu: {objection}; llama: not installed", param="model")
    return _choice("llama", objection or f"it is the faster one for fewer than {MANY} requests at once")


def _named(facts: Circumstances) -> EngineChoice:
    if facts.wish not in facts.engines:
        raise Unsupported(f"the engine {facts.wish} was named (PUNA_ENGINE) but is not installed here", param="model")
    if facts.wish == "cpu" and (objection := _cpu(facts)) is not None:
        raise Unsupported(
            f"the engine cpu was named (PUNA_ENGINE) but cannot run this model: {objection}", param="model"
        )
    return _choice(facts.wish, "named by PUNA_ENGINE")


def _cpu(facts: Circumstances) -> str | None:
    if "cpu" not in facts.engines:
        return "the cpu engine is not installed"
    if facts.projectors:
        return "it has a projector"
    if facts.adapters:
        return "it has adapters"
    if facts.embedding:
        return "it is to embed"
    if facts.gpu_layers is not None and facts.gpu_layers > 0:  # -1, Ollama's default: as the engine likes
        return "layers are to go to a GPU (num_gpu)"
    return why_not(facts.architecture, facts.tensor_types, facts.machine, facts.metadata)


def _memory(facts: Circumstances) -> str | None:
    if facts.room is None or facts.need <= facts.room:
        return None
    return f"it would take about {facts.need / 2**30:.1f} GiB of memory, and {facts.room / 2**30:.1f} could be had"


def _choice(engine: str, reason: str) -> EngineChoice:
    return EngineChoice(engine, reason, SLOTS.get(engine, DEFAULT_SLOTS))
