"""Which engine runs a model. Pure: it compares what engines say, knows none of them and probes no machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from puna.engine.engine import Opinion
from puna.errors import Unsupported


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine that will run a model, and why.

    `reason` is shown to users. `slots`: how many requests at once the engine does well.

    `instead`: what to turn to should this one turn out not to load the model; None where one was named.
    """

    engine: str
    reason: str
    slots: int
    instead: EngineChoice | None = None


def choose(wish: str, opinions: Sequence[Opinion], room: int | None) -> EngineChoice:
    """The engine that was named, or the first that can. Unsupported says why none can.

    `wish`: a name, or `auto`. `opinions` in order of preference. `room`: bytes that could be had for models, None if
    it does not matter.

    An engine that would use a GPU of this machine comes before those that would not. One that has too little memory is
    passed over for one that has enough; if none has, the first one that can is taken, and refuses with figures.
    """
    if wish != "auto":
        return _named(wish, opinions)
    able = [one for one in opinions if one.objection is None]
    if not able:
        causes = "; ".join(f"{one.engine}: {one.objection}" for one in opinions)
        raise Unsupported(f"no engine can run this model here: {causes or 'none is installed'}", param="model")
    able.sort(key=lambda one: not one.on_gpu)
    fitting = [one for one in able if room is None or one.need <= room]
    best, *others = fitting or able[-1:]
    passed = [one for one in opinions if one is not best]
    reason = "; ".join(_objections(passed[: opinions.index(best)], best, room)) or best.merit
    instead = None if not others else EngineChoice(others[0].engine, others[0].merit, others[0].slots)
    return EngineChoice(best.engine, reason, best.slots, instead)


def _named(wish: str, opinions: Sequence[Opinion]) -> EngineChoice:
    for one in opinions:
        if one.engine != wish:
            continue
        if one.objection is not None:
            raise Unsupported(
                f"the engine {wish} was named (PUNA_ENGINE) but cannot run this model: {one.objection}", param="model"
            )
        return EngineChoice(wish, "named by PUNA_ENGINE", one.slots)
    raise Unsupported(f"the engine {wish} was named (PUNA_ENGINE) but is not installed here", param="model")


def _objections(before: Sequence[Opinion], best: Opinion, room: int | None) -> list[str]:
    """Why those that are preferred to the best one were not taken."""
    reasons = []
    for one in before:
        if one.objection is not None:
            reasons.append(one.objection)
        elif room is not None and one.need > room:
            reasons.append(_short(one, room))
        elif best.on_gpu and not one.on_gpu:
            reasons.append(best.merit)
    return reasons


def _short(one: Opinion, room: int) -> str:
    need = f"{one.need / 2**30:.1f} GiB of memory"
    return f"the {one.engine} engine would take about {need}, and {room / 2**30:.1f} could be had"
