"""What the garbage collector looks through in a triggerer."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from airflow_training.triggers import garbage as module
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


def kept_from_collections() -> weakref.ref[Cycle]:
    """Garbage that has survived a collection before it became garbage."""
    cycle = Cycle()
    gc.collect()
    return weakref.ref(cycle)


def test_what_has_survived_is_not_looked_through_again_while_a_job_is_followed(garbage: Garbage) -> None:
    garbage.begin()
    left = kept_from_collections()

    gc.collect()

    assert left()


def test_when_no_job_is_followed_everything_is_looked_through(garbage: Garbage) -> None:
    garbage.begin()
    garbage.begin()
    left = kept_from_collections()

    garbage.end()
    gc.collect()
    assert left()

    garbage.end()
    gc.collect()
    assert not left()


def test_now_and_then_everything_is_looked_through(garbage: Garbage, monkeypatch: pytest.MonkeyPatch) -> None:
    garbage.begin()
    left = kept_from_collections()

    monkeypatch.setattr(module, "_AGAIN", 0.0)
    gc.collect()
    gc.collect()

    assert not left()
