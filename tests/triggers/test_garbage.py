"""What the garbage collector looks through in a triggerer."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from airflow_training.triggers.garbage import Garbage


@pytest.fixture
def garbage() -> Iterator[Garbage]:
    garbage = Garbage()
    yield garbage
    gc.callbacks.remove(garbage._collected)
    gc.unfreeze()


class Cycle:
    def __init__(self) -> None:
        self.me = self


def test_what_has_survived_is_not_looked_through_again(garbage: Garbage) -> None:
    before = gc.get_freeze_count()
    kept = [Cycle() for _ in range(1000)]

    gc.collect()

    assert gc.get_freeze_count() >= before + len(kept)


@pytest.mark.parametrize(("followed", "ends"), [(0, 100), (500, 500)])
def test_what_trainings_leave_is_found_when_enough_of_them_have_ended(
    garbage: Garbage, followed: int, ends: int
) -> None:
    cycle = Cycle()
    gc.collect()
    left = weakref.ref(cycle)
    del cycle

    for _ in range(ends - 1):
        garbage.ended(followed)
    gc.collect()
    assert left()

    garbage.ended(followed)
    gc.collect()
    assert not left()
