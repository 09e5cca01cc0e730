"""Somebody who follows a job: when more is wanted."""

from __future__ import annotations

import asyncio

import pytest

from airflow_training.api.log import LogRecord
from airflow_training.api.status import JobStatus
from airflow_training.client.follow.subscription import Follower
from airflow_training.client.follow.update import LINES_AT_ONCE, News

pytestmark = pytest.mark.anyio

RUNNING = JobStatus.model_validate({"job_id": "job", "status": "RUNNING"})


def follower_told(sizes: list[int], woken: list[int]) -> Follower:
    """A follower with news of such sizes; the second list is told how much waits when it wants more."""

    def wake() -> None:
        woken.append(follower.untaken)

    follower = Follower("job", 0, lambda news: None, wake)
    follower.tell([News(RUNNING, [], 0, size) for size in sizes])
    return follower


def take(follower: Follower) -> None:
    follower.taken(follower.next_piece())


async def test_who_has_taken_everything_wants_to_be_asked_for_again() -> None:
    woken: list[int] = []
    follower = follower_told([1000, 1000], woken)

    take(follower)
    assert woken == []
    take(follower)
    assert woken == [0]


async def test_who_has_too_much_is_busy_until_it_is_taken() -> None:
    woken: list[int] = []
    follower = follower_told([64 * 1024] * 3, woken)
    busy = [follower.busy]

    for _ in range(2):
        take(follower)
        busy.append(follower.busy)

    assert busy == [True, True, False]
    assert woken == [64 * 1024]


@pytest.mark.parametrize("lines", [0, 1, LINES_AT_ONCE, LINES_AT_ONCE + 1, 3 * LINES_AT_ONCE])
async def test_following_is_not_resumed_behind_lines_that_have_not_been_taken(lines: int) -> None:
    records = [LogRecord(str(number)) for number in range(lines)]

    pieces = list(News(RUNNING, records, 500, 400, last=True).pieces(100))

    assert [record for piece in pieces for record in piece.records] == records
    assert [piece.offset for piece in pieces] == [100] * (len(pieces) - 1) + [500]
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert sum(piece.size for piece in pieces) == 400
    assert max(len(piece.records) for piece in pieces) <= LINES_AT_ONCE


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancellation_that_comes_when_the_time_is_up_says_by_whom(steps: int) -> None:
    follower = follower_told([], [])

    async def wait_again_and_again() -> None:
        while True:
            await follower.changed(0)

    task = asyncio.ensure_future(wait_again_and_again())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel("Airflow's user")

    with pytest.raises(asyncio.CancelledError, match="Airflow's user"):
        await task
