"""Reporting on a job, where time and Airflow play tricks; how it goes otherwise is tested in tests/airflow."""

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
from airflow_training.client.follow.delivery import Turns
from airflow_training.client.follow.subscription import Follower
from airflow_training.client.follow.update import News, Take
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
    """A watcher whose one follower is told what a test tells it."""

    followed = 1

    def __init__(self) -> None:
        self.turns = Turns()

    @contextmanager
    def follower(self, job_id: str, offset: int, take: Take) -> Iterator[Follower]:
        self.one = Follower(job_id, offset, take, lambda: None)
        yield self.one


class Log:
    """Drops what it is told."""

    def log(self, level: int, event: str, **kwargs: Any) -> None:
        pass


def following(
    watched: Watched, store: Store, lines: TaskLog | None = None, limits: Any = None
) -> asyncio.Task[Outcome]:
    """Begin to report on a job, with a day to go unless there are other limits."""
    now = datetime.now(timezone.utc)
    limits = limits or Limits(now, deadline=now + timedelta(days=1))
    watcher = cast("Watcher", watched)
    return asyncio.ensure_future(report(watcher, "job", log=Log(), lines=lines or Log(), store=store, limits=limits))


@pytest.mark.parametrize("steps", range(12))
async def test_a_cancellation_is_not_lost_however_close_to_news_it_comes(steps: int) -> None:
    async def store(key: str, value: Any) -> None:
        pass

    watched = Watched()
    task = following(watched, store)
    await asyncio.sleep(0)
    watched.turns.tell(watched.one, [News(RUNNING, [LogRecord("line")], 5)])
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
                watched.turns.tell(watched.one, [News(ended, [], 9, last=True)])
                await watched.one.all_taken()
            stored.append(value["status"])

    task = following(watched, store)
    await asyncio.sleep(0)
    watched.turns.tell(watched.one, [News(RUNNING, [LogRecord("line")], 5)])

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
    watched.turns.tell(watched.one, [News(RUNNING, [LogRecord("line", time)], 20)])
    await watched.one.all_taken()
    task.cancel()
    await asyncio.wait([task])

    assert stored == cursors


class PendingTimeout:
    """A limit for jobs that are pending; it passes when a test says so."""

    def __init__(self) -> None:
        self.has_passed = False
        self.looked = asyncio.Event()

    def next_end(self, status: JobStatus | None) -> tuple[datetime, str] | None:
        if not self.has_passed:
            return None
        self.looked.set()
        is_pending = status is not None and status.state is JobState.PENDING
        return (datetime.now(timezone.utc), "has waited for its start") if is_pending else None


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

    # Limits are looked at as often.
    monkeypatch.setattr("airflow_training.following.follow_job.CURSOR_INTERVAL", 0.05)
    monkeypatch.setattr("airflow_training.following.follow_job._BETWEEN_WRITES", 0)
    monkeypatch.setattr(Watched, "client", SimpleNamespace(cancel=cancel), raising=False)
    task = following(watched, store, lines=Slow(), limits=limits)
    await asyncio.sleep(0)
    try:
        pending = RUNNING.model_copy(update={"state": JobState.PENDING, "start_time": None})
        watched.turns.tell(watched.one, [News(pending, [], 0)])
        await is_published.wait()
        watched.turns.tell(watched.one, [News(RUNNING, [LogRecord("line")], 5)])
        limits.has_passed = True
        await limits.looked.wait()
    finally:
        go_on.set()
    ended = RUNNING.model_copy(update={"state": JobState.SUCCEEDED})
    watched.turns.tell(watched.one, [News(ended, [], 5, last=True)])

    assert (await task).status == ended
    assert canceled == []


class RunsOn(Watched):
    """A watcher of a job that writes on and on, and whose service does nothing when it is canceled."""

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
            self.turns.tell(self.one, [News(RUNNING, [LogRecord("line")], offset)])
            await self.one.all_taken()
            await asyncio.sleep(0.01)


async def test_a_job_that_runs_on_though_it_was_canceled_is_not_followed_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = RunsOn()

    async def store(key: str, value: Any) -> None:
        pass

    monkeypatch.setattr("airflow_training.following.follow_job._DRAIN", 0.2)
    now = datetime.now(timezone.utc)
    with pytest.raises(JobTimedOut):
        await following(watched, store, limits=Limits(now, deadline=now))
    watched.writing.cancel()


class EndedBefore(Watched):
    """A watcher, and the client of a service that had ended the job by the time it took the cancellation."""

    ended = RUNNING.model_copy(update={"state": JobState.FAILED, "message": "ran for its completionTime [AT-456]"})

    @property
    def client(self) -> EndedBefore:
        return self

    async def cancel(self, job_id: str) -> bool:
        self.turns.tell(self.one, [News(self.ended, [], 0, last=True)])
        return True

    async def status(self, job_id: str) -> JobStatus:
        return self.ended


async def test_a_job_that_failed_before_it_was_canceled_is_not_said_to_be_canceled() -> None:
    async def store(key: str, value: Any) -> None:
        pass

    now = datetime.now(timezone.utc)
    with pytest.raises(JobTimedOut, match="failed before it could be canceled: ran for its completionTime"):
        await following(EndedBefore(), store, limits=Limits(now, deadline=now))
