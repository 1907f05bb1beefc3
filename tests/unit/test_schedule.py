"""How the suite gives out its tests: to which process, in which order, and what is alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes import schedule
from fakes.schedule import MEASURING, Shifts, beginning, part, place, unit

PLAIN = [f"tests/unit/test_{name}.py::test_{number}" for name in "abcdef" for number in range(3)]
REAL = [f"tests/real/cpu/test_{name}.py::test_{number}" for name in "xyz" for number in range(3)]
COSTS = [f"{MEASURING}::test_{number}" for number in range(3)]


class Process:
    """One of xdist's workers: it runs a test when it knows the next, or that there is none."""

    def __init__(self, number: int) -> None:
        self.gateway = SimpleNamespace(id=f"gw{number}")
        self.shutting_down = False
        self.given: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += indices

    def shutdown(self) -> None:
        self.shutting_down = True


class Run:
    """A run of tests by so many processes. `ran`: what each ran at each of its turns."""

    def __init__(self, tests: list[str], processes: int) -> None:
        options = SimpleNamespace(loadscopereorder=False)
        config: Any = SimpleNamespace(option=options, getvalue=lambda name: [f"{processes}*popen"])
        self.tests = sorted(tests, key=place)
        self.shifts = Shifts(config)
        self.processes = [Process(number) for number in range(processes)]
        self.ran: list[tuple[int, str]] = []
        for process in self.processes:
            self.shifts.add_node(process)  # type: ignore[arg-type]
            self.shifts.add_node_collection(process, self.tests)  # type: ignore[arg-type]
        self.shifts.schedule()

    def turn(self, number: int) -> bool:
        """Process `number` runs its next test, or ends. False if it can do neither."""
        process = self.processes[number]
        if process not in self.shifts.nodes:
            return False
        if len(process.given) > 1 or (process.given and process.shutting_down):
            index = process.given.pop(0)
            self.ran.append((number, self.tests[index]))
            self.shifts.mark_test_complete(process, index)  # type: ignore[arg-type]
            return True
        if process.shutting_down:
            assert self.shifts.remove_node(process) is None  # type: ignore[arg-type]
            return True
        return False


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (0, 0, 0, 1, 2, 2, 3)])
def test_everything_runs_once_and_what_measures_runs_last_and_alone(processes: int, order: tuple[int, ...]) -> None:
    run = Run([*COSTS, *REAL, *PLAIN], processes)
    turns = [number for number in order if number < processes]
    while sum(run.turn(number) for number in turns):
        pass
    assert run.shifts.nodes == []
    assert sorted(test for _, test in run.ran) == sorted([*COSTS, *REAL, *PLAIN])
    assert [test for _, test in run.ran[-len(COSTS) :]] == COSTS


def test_each_core_has_a_process_that_begins_with_models_and_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert schedule.workers() == 4
    run = Run([*COSTS, *REAL, *PLAIN], 4)
    for number in range(4):
        assert run.turn(number)
    assert [test.split("/")[1] for _, test in run.ran] == ["real", "real", "unit", "unit"]


def test_a_server_is_met_by_one_process_with_one_engine_after_the_other() -> None:
    file = "tests/real/test_tools.py"
    assert unit(f"{file}::test_a[llama-1]") == unit(f"{file}::test_b[llama]") == f"{file} llama"
    assert unit(f"{file}::test_a[cpu]") == f"{file} cpu"
    assert unit(f"{file}::test_c[llamas]") == unit(f"{file}::test_c") == file
    assert unit("tests/unit/test_a.py::test[cpu]") == "tests/unit/test_a.py"
    wanted = [
        PLAIN[0],
        f"{file}::a[llama]",
        "tests/real/test_z.py::a[llama]",
        f"{file}::a[cpu]",
        f"{file}::a",
        COSTS[0],
    ]
    assert sorted(sorted(wanted), key=place) == wanted


def test_all_collect_all_and_each_begins_elsewhere(tmp_path: Path) -> None:
    names = ["api/cli/test_a.py", "api/cli/deep/test_b.py", "api/test_c.py", "unit/test_d.py", "unit/store/test_e.py"]
    for name in [*names, "unit/store/helper.py", "fakes/f.py", "fuzz/corpus/g.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    orders = [[str(each.relative_to(tmp_path)) for each in beginning(tmp_path, number, 4)] for number in range(4)]
    assert orders[0] == ["api/cli", "api/test_c.py", "unit/store", "unit/test_d.py"]
    assert [order[0] for order in orders] == orders[0]
    assert all(sorted(order) == orders[0] for order in orders)


def test_cores_are_shared_out() -> None:
    assert [part([0, 1], number, 4) for number in range(4)] == [[0], [1], [0], [1]]
    assert [part([4, 5, 6, 7], number, 2) for number in range(2)] == [[4, 5], [6, 7]]
    assert [part([0, 1, 2], number, 2) for number in range(2)] == [[0, 1], [2]]
    assert part([3], 2, 4) == [3]
