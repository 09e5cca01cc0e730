"""Following a job with unusual timing; tests/airflow has the rest."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, cast

import pytest

from airflow_training.api.log import LogRecord
from airflow_training.api.status import JobState, JobStatus
from airflow_training.client.follow.delivery import Delivery
from airflow_training.client.follow.subscription import Subscription
from airflow_training.client.follow.update import Update, Write
from airflow_training.client.follow.watcher import Watcher
from airflow_training.exceptions import JobTimedOut
from airflow_training.following.deadlines import Limits
from airflow_training.following.follow_job import Outcome, Store, report
from airflow_training.following.task_log import TaskLog
from airflow_training.xcom_keys import CURSOR_KEY, STATUS_KEY
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio

RUNNING = JobStatus.model_validate({"job_id": "job", "status": "RUNNING", "startTime": "2026-11-25T00:00:00Z"})


class Watched:
    """A watcher with one subscription, whose updates a test queues."""

    followed = 1

    def __init__(self) -> None:
        self.delivery = Delivery()

    @contextmanager
    def subscribe(self, job_id: str, offset: int, write: Write) -> Iterator[Subscription]:
        self.one = Subscription(job_id, offset, write, lambda: None)
        yield self.one


class Log:
    """Drops its lines."""

    def log(self, level: int, event: str, **kwargs: Any) -> None:
        pass


def following(
    watched: Watched, store: Store, lines: TaskLog | None = None, limits: Any = None
) -> asyncio.Task[Outcome]:
    """Start to follow a job, with a day to go unless there are other limits."""
    now = datetime.now(timezone.utc)
    limits = limits or Limits(now, deadline=now + timedelta(days=1))
    watcher = cast("Watcher", watched)
    return asyncio.ensure_future(report(watcher, "job", log=Log(), lines=lines or Log(), store=store, limits=limits))


@pytest.mark.parametrize("steps", range(12))
async def test_a_cancellation_is_not_lost_however_close_to_an_update_it_comes(steps: int) -> None:
    async def store(key: str, value: Any) -> None:
        pass

    watched = Watched()
    task = following(watched, store)
    await asyncio.sleep(0)
    watched.delivery.queue(watched.one, [Update(RUNNING, [LogRecord("line")], 5)])
    for _ in range(steps):
        await asyncio.sleep(0)

    task.cancel()

    done, _ = await asyncio.wait({task}, timeout=PATIENCE)
    assert done
    assert task.cancelled()


async def test_the_last_status_is_published_though_it_comes_while_another_is_stored() -> None:
    watched = Watched()
    ended = RUNNING.model_copy(update={"state": JobState.CANCELED})
    stored: list[str] = []

    async def store(key: str, value: Any) -> None:
        if key == STATUS_KEY:
            if not stored:
                watched.delivery.queue(watched.one, [Update(ended, [], 9, last=True)])
                await watched.one.all_delivered()
            stored.append(value["status"])

    task = following(watched, store)
    await asyncio.sleep(0)
    watched.delivery.queue(watched.one, [Update(RUNNING, [LogRecord("line")], 5)])

    assert (await task).status == ended
    assert stored == ["RUNNING", "CANCELED"]


@pytest.mark.parametrize(("time", "cursors"), [(datetime.now(timezone.utc), []), (None, [20])])
async def test_lines_that_may_be_lost_with_their_triggerer_are_read_again_if_none_is_then_there_twice(
    time: datetime | None, cursors: list[int]
) -> None:
    watched = Watched()
    stored = []

    async def store(key: str, value: Any) -> None:
        if key == CURSOR_KEY:
            stored.append(value["offset"])

    task = following(watched, store)
    await asyncio.sleep(0)
    watched.delivery.queue(watched.one, [Update(RUNNING, [LogRecord("line", time)], 20)])
    await watched.one.all_delivered()
    task.cancel()
    await asyncio.wait([task])

    assert stored == cursors


class PendingTimeout:
    """A limit for pending jobs; a test decides when it passes."""

    def __init__(self) -> None:
        self.has_passed = False
        self.looked = asyncio.Event()

    def next_end(self, status: JobStatus | None) -> tuple[datetime, str] | None:
        if not self.has_passed:
            return None
        self.looked.set()
        is_pending = status is not None and status.state is JobState.PENDING
        return (datetime.now(timezone.utc), "has not started within its pending_timeout") if is_pending else None


async def test_a_job_that_has_started_is_not_ended_though_its_lines_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, limits = Watched(), PendingTimeout()
    canceled: list[str] = []
    is_published, go_on = asyncio.Event(), threading.Event()

    async def store(key: str, value: Any) -> None:
        is_published.set()

    async def cancel(job_id: str) -> bool:
        canceled.append(job_id)
        return True

    class Slow(Log):
        def log(self, level: int, event: str, **kwargs: Any) -> None:
            go_on.wait()

    # Limits are checked as often.
    monkeypatch.setattr("airflow_training.following.follow_job.CURSOR_INTERVAL", 0.05)
    monkeypatch.setattr("airflow_training.following.follow_job._BETWEEN_WRITES", 0)
    monkeypatch.setattr(Watched, "client", SimpleNamespace(cancel=cancel), raising=False)
    task = following(watched, store, lines=Slow(), limits=limits)
    await asyncio.sleep(0)
    try:
        pending = RUNNING.model_copy(update={"state": JobState.PENDING, "start_time": None})
        watched.delivery.queue(watched.one, [Update(pending, [], 0)])
        await is_published.wait()
        watched.delivery.queue(watched.one, [Update(RUNNING, [LogRecord("line")], 5)])
        limits.has_passed = True
        await limits.looked.wait()
    finally:
        go_on.set()
    ended = RUNNING.model_copy(update={"state": JobState.SUCCEEDED})
    watched.delivery.queue(watched.one, [Update(ended, [], 5, last=True)])

    assert (await task).status == ended
    assert canceled == []


class RunsOn(Watched):
    """A watcher of a job that keeps writing, since its service ignores the cancellation."""

    @property
    def client(self) -> RunsOn:
        return self

    async def cancel(self, job_id: str) -> bool:
        self.writing = asyncio.ensure_future(self._write())
        return True

    async def status(self, job_id: str) -> JobStatus:
        return RUNNING

    async def _write(self) -> None:
        for offset in itertools.count(1):
            self.delivery.queue(self.one, [Update(RUNNING, [LogRecord("line")], offset)])
            await self.one.all_delivered()
            await asyncio.sleep(0.01)


async def test_a_job_that_keeps_running_after_its_cancellation_is_not_followed_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = RunsOn()

    async def store(key: str, value: Any) -> None:
        pass

    monkeypatch.setattr("airflow_training.following.follow_job._DRAIN_TIMEOUT", 0.2)
    now = datetime.now(timezone.utc)
    with pytest.raises(JobTimedOut):
        await following(watched, store, limits=Limits(now, deadline=now))
    watched.writing.cancel()


class EndedBefore(Watched):
    """A watcher of a job that ended before its cancellation arrived."""

    ended = RUNNING.model_copy(update={"state": JobState.FAILED, "message": "exceeded its completionTime [AT-456]"})

    @property
    def client(self) -> EndedBefore:
        return self

    async def cancel(self, job_id: str) -> bool:
        self.delivery.queue(self.one, [Update(self.ended, [], 0, last=True)])
        return True

    async def status(self, job_id: str) -> JobStatus:
        return self.ended


async def test_a_job_that_failed_before_it_was_canceled_is_reported_as_failed() -> None:
    async def store(key: str, value: Any) -> None:
        pass

    now = datetime.now(timezone.utc)
    with pytest.raises(JobTimedOut, match="failed before it could be canceled: exceeded its completionTime"):
        await following(EndedBefore(), store, limits=Limits(now, deadline=now))
