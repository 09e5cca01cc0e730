"""Delivery of updates: order, turns, errors and batches."""

from __future__ import annotations

import asyncio
import threading

import pytest

from airflow_training.api.log import LONGEST_LINE, LogRecord
from airflow_training.api.status import JobStatus
from airflow_training.client.follow.delivery import Delivery
from airflow_training.client.follow.subscription import Subscription
from airflow_training.client.follow.update import Update, Write
from airflow_training.exceptions import ServiceUnavailable

pytestmark = pytest.mark.anyio

ENDED = JobStatus.model_validate({"job_id": "job", "status": "SUCCEEDED"})


def queue(delivery: Delivery, take: Write, lines: list[str]) -> Subscription:
    """Queue the last lines of a job."""
    subscription = Subscription("job", 0, take, lambda: None)
    delivery.queue(subscription, list(Update(ENDED, [LogRecord(line) for line in lines], 0, last=True).pieces(0)))
    return subscription


async def all_taken(subscription: Subscription) -> None:
    while not subscription.ended:
        await subscription.changed()


async def test_lines_of_many_jobs_are_written_off_the_loop_in_order_and_by_turns() -> None:
    taken: list[str] = []
    threads: set[int] = set()
    jobs = [[f"{job}-{line}" for line in range(250)] for job in range(5)]

    def take(update: Update) -> None:
        threads.add(threading.get_ident())
        taken.extend(record.line for record in update.records)

    delivery = Delivery()
    await asyncio.gather(*(all_taken(queue(delivery, take, lines)) for lines in jobs))

    assert [[line for line in taken if line.startswith(f"{job}-")] for job in range(5)] == jobs
    assert taken.index("4-0") < taken.index("0-60")
    assert threading.get_ident() not in threads


async def test_an_error_of_one_job_does_not_affect_the_others() -> None:
    taken: list[Update] = []

    def broken(update: Update) -> None:
        tried.append(update)
        raise OSError("disk full")

    tried: list[Update] = []
    delivery = Delivery()
    failed, whole = queue(delivery, broken, ["one"] * 200), queue(delivery, taken.append, ["two"])

    with pytest.raises(OSError, match="disk full"):
        await all_taken(failed)
    await all_taken(whole)
    assert [record.line for update in taken for record in update.records] == ["two"]
    assert len(tried) == 1, "nothing is written behind a gap"


async def test_nothing_is_written_after_close() -> None:
    taken: list[Update] = []
    delivery = Delivery()
    queue(delivery, taken.append, ["one"]).close()

    await all_taken(queue(delivery, lambda update: None, ["two"]))

    assert taken == []


async def test_updates_before_an_error_are_delivered_and_may_be_the_last() -> None:
    taken: list[Update] = []
    delivery = Delivery()
    ended = queue(delivery, taken.append, ["one"] * 200)
    goes_on = Subscription("other", 0, taken.append, lambda: None)
    delivery.queue(goes_on, [Update(ENDED, [LogRecord("two")], 0)])

    for subscription in (ended, goes_on):
        subscription.fail(ServiceUnavailable("gone", code="AT-201"))

    await all_taken(ended)
    with pytest.raises(ServiceUnavailable):
        await all_taken(goes_on)
    assert sum(len(update.records) for update in taken) == 201


async def test_lines_that_were_queued_for_long_are_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Update] = []
    lines = [f"line {number}" for number in range(5000)]

    await all_taken(queue(Delivery(), taken.append, lines))
    assert not any(update.batched for update in taken)

    alone = len(taken)
    taken.clear()
    monkeypatch.setattr("airflow_training.client.follow.subscription.LATE", 0)
    await all_taken(queue(Delivery(), taken.append, lines))

    assert all(update.batched for update in taken)
    assert [record.line for update in taken for record in update.records] == lines
    # As many at once as are one record, so that others have their turn.
    assert len(taken) < alone / 5
    assert max(update.length for update in taken[:-1]) < 2 * LONGEST_LINE


async def test_delivery_waits_for_room_before_lines() -> None:
    seen: list[str] = []

    await all_taken(queue(Delivery(lambda: seen.append("room")), lambda update: seen.append("taken"), ["one"]))

    assert seen == ["room", "taken"]
