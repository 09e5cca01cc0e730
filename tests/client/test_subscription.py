"""A subscription to a job: when more is requested."""

from __future__ import annotations

import asyncio

import pytest

from airflow_training.api.log import LogRecord
from airflow_training.api.status import JobStatus
from airflow_training.client.follow.subscription import Subscription
from airflow_training.client.follow.update import MAX_LINES, Update

pytestmark = pytest.mark.anyio

RUNNING = JobStatus.model_validate({"job_id": "job", "status": "RUNNING"})


def subscription_with(sizes: list[int], woken: list[int]) -> Subscription:
    """A subscription with updates of such sizes; the second list gets the undelivered bytes at each wake."""

    def wake() -> None:
        woken.append(subscription.undelivered)

    subscription = Subscription("job", 0, lambda update: None, wake)
    subscription.queue([Update(RUNNING, [], 0, size) for size in sizes])
    return subscription


def deliver(subscription: Subscription) -> None:
    subscription.delivered(subscription.next_update())


async def test_a_subscription_with_everything_delivered_is_requested_again() -> None:
    woken: list[int] = []
    subscription = subscription_with([1000, 1000], woken)

    deliver(subscription)
    assert woken == []
    deliver(subscription)
    assert woken == [0]


async def test_a_subscription_with_too_much_is_busy_until_it_is_delivered() -> None:
    woken: list[int] = []
    subscription = subscription_with([64 * 1024] * 3, woken)
    busy = [subscription.busy]

    for _ in range(2):
        deliver(subscription)
        busy.append(subscription.busy)

    assert busy == [True, True, False]
    assert woken == [64 * 1024]


@pytest.mark.parametrize("lines", [0, 1, MAX_LINES, MAX_LINES + 1, 3 * MAX_LINES])
async def test_following_is_not_resumed_behind_undelivered_lines(lines: int) -> None:
    records = [LogRecord(str(number)) for number in range(lines)]

    pieces = list(Update(RUNNING, records, 500, 400, last=True).pieces(100))

    assert [record for piece in pieces for record in piece.records] == records
    assert [piece.offset for piece in pieces] == [100] * (len(pieces) - 1) + [500]
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert sum(piece.size for piece in pieces) == 400
    assert max(len(piece.records) for piece in pieces) <= MAX_LINES


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancellation_that_comes_at_the_end_of_the_time_keeps_its_message(steps: int) -> None:
    subscription = subscription_with([], [])

    async def wait_again_and_again() -> None:
        while True:
            await subscription.changed(0)

    task = asyncio.ensure_future(wait_again_and_again())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel("Airflow's user")

    with pytest.raises(asyncio.CancelledError, match="Airflow's user"):
        await task
