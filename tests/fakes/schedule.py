"""Which tests run in which process, and when: so that every core always has work, and what measures is alone.

There are two processes for a core, since a test without a model waits half of its time: for a client, a command, a
clock. Each is bound to its core, as are the servers and engines that it starts: an engine then takes one thread, and
none waits for a thread that the system has put aside.

Work is given out in units: a file, or of the files that share one server, those tests that meet the same engine. The
first process of each core begins with models, the longest unit first; the second begins with all the rest. Whoever has
done his own goes on with the other's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

MOST_WORKERS = 4
MEASURING = "tests/api/server/test_costs.py"
"""What measures costs: it runs last, when no other test does."""

LONGEST = (
    "tests/real/test_main_job.py",
    "tests/real/test_tools.py",
    "tests/real/engine/test_seeds.py",
    "tests/real/cpu/test_seeds.py",
    "tests/real/cpu/test_fidelity.py",
    "tests/real/test_structured.py",
    "tests/real/test_fields.py",
    "tests/real/test_snippets.py",
    "tests/real/engine/test_llama.py",
)
"""What takes longest of all with a model, in that order; the others after them."""

ENGINES = ("llama", "cpu")
_ENGINE = re.compile(rf"tests/real/test_.*\[({'|'.join(ENGINES)})\b")


def workers() -> int:
    """How many processes."""
    return min(2 * (os.cpu_count() or 1), MOST_WORKERS)


def unit(nodeid: str) -> str:
    """What is not parted."""
    file = nodeid.partition("::")[0]
    engine = _ENGINE.match(nodeid)
    return f"{file} {engine[1]}" if engine else file


def beginning(tests: Path, number: int, of: int) -> list[Path]:
    """All that `tests` holds, each process of so many beginning elsewhere: what one has compiled, others read."""
    places = sorted({test.relative_to(tests).parts[:2] for test in tests.rglob("test_*.py")})
    first = len(places) * number // of
    return [tests.joinpath(*place) for place in places[first:] + places[:first]]


def has_a_model(unit: str) -> bool:
    return unit.startswith("tests/real/")


def place(nodeid: str) -> tuple[bool, bool, int, int, str]:
    """Sorts tests: without a model, with the engine that others meet too, with a model of their own, what measures."""
    file = nodeid.partition("::")[0]
    engine = _ENGINE.match(nodeid)
    order = ENGINES.index(engine[1]) if engine else len(ENGINES)
    longest = LONGEST.index(file) if file in LONGEST else len(LONGEST)
    return file == MEASURING, has_a_model(file), order, longest, file


def take_cores() -> None:
    """Bind this process, one of xdist's, and all that it starts to its part of the cores."""
    if not hasattr(os, "sched_setaffinity"):
        return
    os.sched_setaffinity(0, part(sorted(os.sched_getaffinity(0)), *this_process()))


def this_process() -> tuple[int, int]:
    """Its number among those of xdist, and how many they are."""
    return _number(os.environ["PYTEST_XDIST_WORKER"]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])


def part(cores: Sequence[int], number: int, of: int) -> Sequence[int]:
    """Of the cores, for process `number` of so many: each has a part, or as many processes share one as there must."""
    parts = min(len(cores), of)
    return [core for place, core in enumerate(cores) if place * parts // len(cores) == number % parts]


def _number(worker: str) -> int:
    return int(worker.removeprefix("gw"))


class Shifts(LoadScopeScheduling):
    """Gives out units, as the module says."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        models = _number(node.gateway.id) < (os.cpu_count() or 1)
        units = [each for each in self.workqueue if each != MEASURING]
        for wanted in [each for each in units if has_a_model(each) is models][:1] or units[:1]:
            self.workqueue.move_to_end(wanted, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        """Of those that find only what measures left, all but the last may end; the last waits for them."""
        if list(self.workqueue) == [MEASURING] and not node.shutting_down:
            others = [other for other in self.nodes if other is not node]
            if any(not other.shutting_down for other in others):
                node.shutdown()
                return
            if any(self._pending_of(self.assigned_work[other]) for other in others):
                return
        super()._reschedule(node)

    def remove_node(self, node: WorkerController) -> str | None:
        crashed: str | None = super().remove_node(node)
        for left in self.nodes:
            self._reschedule(left)
        return crashed
