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
from airflow_training.client.turns import Overload, Turns
from airflow_training.client.watcher import Watcher
from airflow_training.jobs.limits import Limits
from airflow_training.jobs.log import LogRecord
from airflow_training.jobs.status import JobState, JobStatus
from airflow_training.reporting import report
from airflow_training.xcoms import CURSOR_KEY, STATUS_KEY

pytestmark = pytest.mark.anyio

RUNNING = JobStatus.model_validate({"job_id": "job", "status": "RUNNING", "startTime": "2026-11-25T00:00:00Z"})


class Watched:
    """A watcher whose one follower is told what a test tells it."""

    followed = 1

    def __init__(self) -> None:
        self.turns = Turns()
        self.woken = asyncio.Event()

    @contextmanager
    def follower(self, job_id: str, offset: int, take: Take) -> Iterator[Follower]:
        self.one = Follower(job_id, offset, take, self.woken.set)
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


class Lines:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def log(self, level: int, event: str, **kwargs: Any) -> None:
        self.events.append(event)


class Overloaded:
    """A training whose triggerer has the lines of four seconds written together, or of others that a test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, broken: bool = False, cursor: Any = None) -> None:
        self.lines, self.stored, self.watched = Lines(), list[dict[str, Any]](), Watched()
        self.storing, self.is_stored = asyncio.Event(), asyncio.Event()
        self.broken = broken
        self.window = 4
        monkeypatch.setattr(Overload, "note", lambda overload, *_: setattr(overload, "window", self.window))
        now = datetime.now(timezone.utc)
        limits = Limits(now, deadline=now + timedelta(days=1))
        watcher = cast("Watcher", self.watched)
        self.task = asyncio.ensure_future(
            report(watcher, "job", log=self.lines, store=self._store, limits=limits, cursor=cursor)
        )
        self._line = 0
        self.began = datetime(2026, 11, 29, tzinfo=timezone.utc)

    async def _store(self, key: str, value: Any) -> None:
        if key == CURSOR_KEY:
            self.stored.append(value)
            self.storing.set()
            await self.is_stored.wait()
            if self.broken:
                raise OSError("database is locked")

    async def prints(self, *, last: bool = False) -> None:
        """It prints a line, each a second after the one before."""
        await asyncio.sleep(0)
        self._line += 1
        record = LogRecord(str(self._line), self.began + timedelta(seconds=self._line - 1), end=self._line)
        status = RUNNING.model_copy(update={"state": JobState.SUCCEEDED}) if last else RUNNING
        self.watched.turns.tell(self.watched.one, [News(status, [record], self._line, last=last)])
        await self.watched.one.all_taken()


async def test_lines_are_written_together_from_a_stored_cursor_on(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Overloaded(monkeypatch)
    await training.prints()
    await asyncio.wait_for(training.storing.wait(), 10)

    assert training.stored == [{"job_id": "job", "offset": 1, "metrics": {}, "windows": [[1, 4]]}]
    await training.prints()
    assert training.watched.one.busy, "no more lines are wanted than can be held back"
    assert training.lines.events == ["1"], "it may be the offset before the window that is stored in the end"
    training.is_stored.set()
    await asyncio.wait_for(training.watched.woken.wait(), 10)
    for last in (False, False, True):
        await training.prints(last=last)

    assert (await training.task).last_lines == ("1", "2", "3", "4", "5")
    assert training.lines.events == ["1", "2\n00:00:02.000Z 3\n00:00:03.000Z 4", "5"]


async def test_lines_that_were_written_before_a_restart_are_written_again_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = Overloaded(monkeypatch, cursor={"job_id": "job", "offset": 0, "metrics": {}, "windows": [[2, 8]]})
    training.is_stored.set()
    training.began = datetime(2026, 1, 1, 0, 0, 6, tzinfo=timezone.utc)
    for last in (*[False] * 4, True):
        await training.prints(last=last)

    await training.task
    assert training.lines.events == ["1", "2", "3\n00:00:09.000Z 4\n00:00:10.000Z 5"]


async def test_lines_are_written_alone_if_the_cursor_cannot_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Overloaded(monkeypatch, broken=True)
    training.is_stored.set()
    for last in (False, False, True):
        await training.prints(last=last)

    await training.task
    assert [event for event in training.lines.events if event.isdigit()] == ["1", "2", "3"]


@pytest.mark.parametrize("by_a_user", [True, False])
async def test_lines_that_are_held_back_are_written_in_the_end_or_by_the_next_triggerer(
    by_a_user: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Overloaded(monkeypatch, cursor={"job_id": "job", "offset": 0, "metrics": {}, "windows": [[0, 4]]})
    training.is_stored.set()
    for _ in range(5):
        await training.prints()
    first = "1\n00:00:01.000Z 2\n00:00:02.000Z 3\n00:00:03.000Z 4"
    assert training.lines.events == [first]

    training.task.cancel(*["Trigger cancelled"] * by_a_user)
    await asyncio.wait({training.task})

    assert training.lines.events == [first, "5"][: 1 + by_a_user]
    assert training.stored[-1]["offset"] == 4 + by_a_user
