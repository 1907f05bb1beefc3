from __future__ import annotations

from contextlib import ExitStack

from puna.engine.llama.errands import Errands


def test_what_was_cancelled_and_goes_on_is_nobodys_beside_others():
    errands = Errands()
    with errands.one():
        assert not errands.strays([(1, 71)])
        with errands.one():
            assert not errands.strays([(0, 70), (1, 71)])
        assert errands.strays([(0, 70), (1, 71)]) == {(0, 70)}
        assert errands.strays([(0, 70), (1, 71)]) == {(0, 70)}
        assert not errands.strays([(1, 71)])  # it has obeyed


def test_what_was_cancelled_just_now_is_another_each_time():
    """Who is served all the while is not taken for one of those that go."""
    errands = Errands()
    with errands.one():
        assert not errands.strays([(1, 71)])
        for number in range(80, 90):
            with errands.one():
                pass
            assert errands.strays([(0, number), (1, 71)]) == {(0, number)}


def test_who_came_later_hides_no_older_work():
    """Others come and wait: what goes on since before they came is not theirs."""
    errands = Errands()
    with errands.one():
        errands.strays([(0, 70)])
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(errands.one())
        assert errands.strays([(0, 70), (1, 90)]) == {(0, 70)}
        # What replaced it in its slot is a later one's.
        assert not errands.strays([(0, 91), (1, 90)])


def test_without_an_errand_all_work_is_nobodys():
    errands = Errands()
    assert errands.strays([(0, 70)]) == {(0, 70)}
    assert not errands.strays([])
