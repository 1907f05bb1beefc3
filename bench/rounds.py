"""Figures of several things that are measured in turn, round by round, and the table they become.

A round takes one figure of everything once, forwards and backwards by turns, so that a slow second of the machine hits
all alike; what is compared are ratios within a round, and their median. With each round goes how fast memory was read
in it and what share of the processors others took: rounds that were not quiet do not count, unless too few were.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from machine import QUIET, Memory, Moment, await_quiet

ENOUGH = 2
"""Quiet rounds, at least, for the others to be left out."""

Take = Callable[[], float]
"""Measures one figure of one thing."""


@dataclass(frozen=True, slots=True)
class Round:
    """`values` by name, in the figure's unit. `speed`: bytes of memory a second. `others`: the most they took."""

    values: dict[str, float]
    speed: float
    others: float

    @property
    def quiet(self) -> bool:
        return self.others < QUIET


@dataclass
class Rounds:
    """`names`: what is measured, the columns of the table. The first is the one that is compared with each other.

    `pids`: by name, the processes that work for it. `log`: a file that gets a line of JSON for each round. `patience`:
    seconds to wait for a quiet moment before each. `speed`: measures how fast memory is read.
    """

    names: list[str]
    pids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    log: Path | None = None
    patience: float = 20.0
    speed: Take = field(default_factory=lambda: Memory().speed)
    taken: dict[str, list[Round]] = field(default_factory=dict)
    _turn: int = 0

    def round(self, what: str, takes: Mapping[str, Take]) -> Round:
        """Measure each once. The figure is printed at once, to be seen while the rest runs."""
        await_quiet(self.patience)
        speed = self.speed()
        self._turn += 1
        values: dict[str, float] = {}
        others = 0.0
        for name in list(takes) if self._turn % 2 else list(takes)[::-1]:
            moment = Moment.now(self.pids.get(name, ()))
            values[name] = takes[name]()
            others = max(others, moment.others())
        taken = Round({name: values[name] for name in takes}, speed, others)
        self.taken.setdefault(what, []).append(taken)
        self._tell(what, taken)
        return taken

    def note(self, what: str, name: str, value: float) -> None:
        """A figure that is not taken in turn."""
        self.taken.setdefault(what, []).append(Round({name: value}, 0.0, 0.0))

    def counted(self, what: str) -> list[Round]:
        """The rounds of a figure that count."""
        rounds = self.taken.get(what, [])
        quiet = [one for one in rounds if one.quiet]
        return quiet if len(quiet) >= ENOUGH else rounds

    def median(self, what: str, name: str) -> float | None:
        values = [one.values[name] for one in self.counted(what) if name in one.values]
        return statistics.median(values) if values else None

    def ratio(self, what: str, name: str) -> float | None:
        """The median of the first one's figure over `name`'s, round by round."""
        first = self.names[0]
        both = [one.values for one in self.counted(what) if {first, name} <= one.values.keys()]
        ratios = [values[first] / values[name] for values in both if values[name]]
        return statistics.median(ratios) if ratios else None

    def table(self) -> str:
        """A row a figure: medians, and behind each how many times it the first one's is, round by round.

        Then memory's speed, the most that others took of the processors, and how many rounds counted.
        """
        heads = ["", *self.names, "memory, GB/s", "others", "rounds"]
        lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        lines += [
            "| " + " | ".join([what, *self._cells(what), *self._circumstances(what)]) + " |" for what in self.taken
        ]
        return "\n".join(lines)

    def _cells(self, what: str) -> list[str]:
        cells = []
        for name in self.names:
            value = self.median(what, name)
            ratio = None if name == self.names[0] else self.ratio(what, name)
            cells.append(("–" if value is None else number(value)) + ("" if ratio is None else f" ({ratio:.2f})"))
        return cells

    def _circumstances(self, what: str) -> list[str]:
        counted, rounds = self.counted(what), self.taken[what]
        speeds = [one.speed / 1e9 for one in counted if one.speed]
        if not speeds:
            return ["", "", ""]
        noisy = "" if all(one.quiet for one in counted) else " (not quiet)"
        return [
            f"{statistics.median(speeds):.0f} ({min(speeds):.0f}–{max(speeds):.0f})",
            f"{100 * max(one.others for one in counted):.0f} %{noisy}",
            f"{len(counted)} of {len(rounds)}",
        ]

    def _tell(self, what: str, taken: Round) -> None:
        values = ", ".join(f"{name} {number(value)}" for name, value in taken.values.items())
        print(f"{what}: {values}; memory {taken.speed / 1e9:.0f} GB/s, others {100 * taken.others:.0f} %", flush=True)
        if self.log is not None:
            said = {"at": time.strftime("%F %T"), "what": what, "values": taken.values}
            with self.log.open("a") as file:
                file.write(json.dumps({**said, "memory": taken.speed, "others": taken.others}) + "\n")


def number(value: float) -> str:
    """As many places as it takes to tell two figures apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
