"""Somebody who follows a job: when more is wanted."""

from __future__ import annotations

import pytest

from airflow_training.client.follower import Follower, Told

pytestmark = pytest.mark.anyio


async def test_who_has_taken_everything_wants_to_be_asked_for_again() -> None:
    woken: list[int] = []
    follower = Follower("job", 0, lambda: woken.append(follower.untaken))
    for _ in range(2):
        follower.tell(Told(size=1000))

    await follower.next()
    assert woken == []
    await follower.next()
    assert woken == [0]


async def test_who_has_too_much_is_busy_until_it_is_taken() -> None:
    woken: list[int] = []
    follower = Follower("job", 0, lambda: woken.append(follower.untaken))
    for _ in range(3):
        follower.tell(Told(size=64 * 1024))
    busy = [follower.busy]

    for _ in range(2):
        await follower.next()
        busy.append(follower.busy)

    assert busy == [True, True, False]
    assert woken == [64 * 1024]
