"""Reporting on a job, where time and Airflow play tricks; how it goes otherwise is tested in tests/airflow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pytest

from airflow_training.client.follower import Follower
from airflow_training.client.news import News, Take
from airflow_training.client.turns import Turns
from airflow_training.client.watcher import Watcher
from airflow_training.jobs.limits import Limits
from airflow_training.jobs.log import LogRecord
from airflow_training.jobs.status import JobState, JobStatus
from airflow_training.reporting import report
from airflow_training.xcoms import STATUS_KEY

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


@pytest.mark.parametrize("steps", range(12))
async def test_a_cancellation_is_not_lost_however_close_to_news_it_comes(steps: int) -> None:
    async def store(key: str, value: Any) -> None:
        pass

    watched = Watched()
    now = datetime.now(timezone.utc)
    limits = Limits(now, deadline=now + timedelta(days=1))
    task = asyncio.ensure_future(report(cast("Watcher", watched), "job", log=Log(), store=store, limits=limits))
    await asyncio.sleep(0)
    watched.turns.tell(watched.one, [News(RUNNING, [LogRecord("line")], 5)])
    for _ in range(steps):
        await asyncio.sleep(0)

    task.cancel()

    done, _ = await asyncio.wait({task}, timeout=10)
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

    now = datetime.now(timezone.utc)
    limits = Limits(now, deadline=now + timedelta(days=1))
    task = asyncio.ensure_future(report(cast("Watcher", watched), "job", log=Log(), store=store, limits=limits))
    await asyncio.sleep(0)
    watched.turns.tell(watched.one, [News(RUNNING, [LogRecord("line")], 5)])

    assert (await task).status == ended
    assert stored == ["RUNNING", "CANCELED"]
