"""What there is of memory, and the largest context that it holds."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import psutil
import pytest

from puna.engine.memory import STEP, largest_context
from puna.scheduler.free import free_memory, left_of_groups, left_of_processes


@pytest.mark.parametrize("available", [0, 999, 1000, 1000 + STEP, 5000, 10**6, 10**9])
def test_the_largest_context_fits_and_the_next_does_not(available: int) -> None:
    def need(num_ctx: int) -> int:
        return 1000 + 3 * num_ctx

    found = largest_context(need, available, 4000)
    if found is None:
        assert need(STEP) > available
    else:
        assert need(found) <= available
        assert found == 4000 or need(min(found + STEP, 4000)) > available


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_containers_limit_counts_and_what_it_could_give_back_is_free(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/box/mine\n",
            "sys/fs/cgroup/box/mine/memory.max": "max\n",
            "sys/fs/cgroup/box/mine/memory.current": "900\n",
            "sys/fs/cgroup/box/memory.max": "1000\n",
            "sys/fs/cgroup/box/memory.current": "900\n",
            "sys/fs/cgroup/box/memory.stat": "anon 600\ninactive_file 300\n",
        },
    )
    assert [*left_of_groups(tmp_path)] == [400]


def test_a_group_that_is_slowed_down_from_a_limit_on_has_no_more_than_that(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/box/mine\n",
            "sys/fs/cgroup/box/mine/memory.max": "2000\n",
            "sys/fs/cgroup/box/mine/memory.high": "1500\n",
            "sys/fs/cgroup/box/mine/memory.current": "900\n",
            "sys/fs/cgroup/box/mine/memory.stat": "anon 600\n",
            "sys/fs/cgroup/box/memory.max": "max\n",
            "sys/fs/cgroup/box/memory.high": "1000\n",
            "sys/fs/cgroup/box/memory.current": "950\n",
            "sys/fs/cgroup/box/memory.stat": "anon 600\n",
        },
    )
    assert sorted(left_of_groups(tmp_path)) == [50, 600, 1100]


def test_the_older_form_of_groups(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,memory:/box\n1:name=systemd:/\n",
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "1000\n",
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "1200\n",
            "sys/fs/cgroup/memory/box/memory.stat": "total_inactive_file 50\n",
        },
    )
    assert [*left_of_groups(tmp_path)] == [0]


def test_a_limit_that_cannot_be_read_now_is_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n"})

    def fail(_: Path) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "read_text", fail)
    with pytest.raises(OSError, match="Too many open files"):
        list(left_of_groups(tmp_path))


def test_without_groups_the_system_decides(tmp_path: Path) -> None:
    assert [*left_of_groups(tmp_path)] == []
    assert 0 < free_memory() <= psutil.virtual_memory().total


def test_a_limit_of_addresses_counts_less_what_a_runner_begins_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, left in ((resource.RLIM_INFINITY, []), (1 << 20, [0]), (4 << 30, [(4 << 30) - (768 << 20)])):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert [*left_of_processes()] == left
