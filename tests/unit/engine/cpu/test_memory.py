from __future__ import annotations

import pytest

from puna.engine.cpu.memory import HUGE, LINE, room


@pytest.mark.parametrize("size", [1, 1000, HUGE - 1, HUGE, 3 * HUGE + 5])
def test_room_is_zeros_from_an_edge_on_and_may_be_written(size: int) -> None:
    found = room(size)
    assert found.nbytes == size
    assert found.ctypes.data % LINE == 0
    assert not found[:1000].any()
    assert not found[-1000:].any()
    found[0] = found[-1] = 7
    assert found[-1] == 7


def test_more_than_there_is_is_told() -> None:
    with pytest.raises(MemoryError):
        room(1 << 60)
