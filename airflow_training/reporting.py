"""What a running job tells its user in Airflow: lines in the task log, the status in XCom.

The worker and the triggerer follow a job by this one function, so that the two cannot drift apart.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from anyio import fail_after, move_on_after

from airflow_training import stats
from airflow_training.client.news import News
from airflow_training.client.retry import RetryPolicy
from airflow_training.client.watch import follow
from airflow_training.client.watcher import Watcher
from airflow_training.exceptions import JobTimedOut, TrainingError
from airflow_training.jobs.limits import Limits
from airflow_training.jobs.status import JobState, JobStatus
from airflow_training.task_log import TaskLog, write_lines

STATUS_KEY = "training_status"
"""The XCom that holds the status object of the running job."""

CURSOR_KEY = "training_log_cursor"
"""The XCom that holds how much of which job's log is in the task log, and the metrics that this part of it told."""

STATUS_INTERVAL = 60.0
"""Seconds after which the status is published again, changed or not, where few jobs are followed.

It is trainingClient's minute.
"""

CURSOR_INTERVAL = 5.0
"""Seconds between two savings of the cursor, where the log grows and few jobs are followed."""

PATIENCE = RetryPolicy(budget=15 * 60)
"""How long a service may be away while a job runs: one that is being upgraded does not end a training."""

_LAST_LINES = 10
_LONGEST_LAST_LINE = 500
# Seconds between two writes into XCom on average, whichever job they are for: each takes the triggerer about ten
# milliseconds.
_BETWEEN_WRITES = 0.25
# Seconds: to save the cursor when we are told to end; to have a job canceled; for what a canceled job still says.
_LAST_WORD = 1.0
_CANCEL = 60.0
_DRAIN = 60.0

Store = Callable[[str, Any], Awaitable[None]]


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: Its final status.
        last_lines: The end of its log.
        metrics: What its log told of the model: name → value.
    """

    status: JobStatus
    last_lines: Sequence[str] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON can hold it."""
        return {
            "status": self.status.to_wire(),
            "last_lines": list(self.last_lines),
            "metrics": dict(self.metrics),
        }

    @classmethod
    def from_dict(cls, outcome: Mapping[str, Any]) -> Outcome:
        """Read what `to_dict` wrote."""
        return cls(JobStatus.model_validate(outcome["status"]), outcome["last_lines"], outcome["metrics"])


class _TimeIsUp(Exception):
    """A limit has been reached; the message says which."""


async def report(
    watcher: Watcher, job_id: str, *, log: TaskLog, store: Store, limits: Limits, cursor: Any = None
) -> Outcome:
    """Follow a job to its end and report on it; end it when it takes too long.

    Args:
        watcher: Looks after the jobs of the service.
        job_id: The job.
        log: The task log, which receives every line of the job's log with the time at which it was written.
        store: Stores a value in the task's XCom: the status at every change and each minute, and the cursor.
        limits: How long the job may take.
        cursor: The stored cursor of an earlier life, from which the log goes on.

    Raises:
        JobLost: The service forgot the job.
        JobTimedOut: It took longer than it may.
        ServiceError: The service cannot be asked any more.
    """
    known = isinstance(cursor, dict) and cursor.get("job_id") == job_id
    reporter = _Reporter(watcher, job_id, log, store, cursor if known else {"offset": 0, "metrics": {}})
    try:
        return await reporter.follow(limits)
    except _TimeIsUp as limit:
        return await reporter.end(str(limit))
    except asyncio.CancelledError:
        with move_on_after(_LAST_WORD):
            await reporter.save_cursor()
        raise


class _Reporter:
    def __init__(self, watcher: Watcher, job_id: str, log: TaskLog, store: Store, cursor: Mapping[str, Any]) -> None:
        self._watcher = watcher
        self._job_id = job_id
        self._log = log
        self._store = store
        self._offset = self._saved_offset = int(cursor["offset"])
        self._save_again = 0.0
        self._status: JobStatus | None = None
        self._published: JobStatus | None = None
        self._publish_again = 0.0
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._metrics: dict[str, float] = dict(cursor["metrics"])

    async def follow(self, limits: Limits | None) -> Outcome:
        """Follow the job to its end, or to the first of its limits."""
        async with aclosing(follow(self._watcher, self._job_id, self._offset)) as all_news:
            while news := await self._next(all_news.__anext__, limits):
                await self._tell(news)
        if self._status is None:
            raise AssertionError("following a job yields its status at least once")
        await self.save_cursor()
        return self._outcome(self._status)

    def _outcome(self, status: JobStatus) -> Outcome:
        return Outcome(status, tuple(self._last_lines), self._metrics)

    async def end(self, limit: str) -> Outcome:
        """Have the job canceled, and tell what it still has to say."""
        job = f"The training job {self._status.name if self._status else ''} ({self._job_id}) {limit}"
        self._log.log(logging.WARNING, f"{job}; it is being canceled")
        try:
            with fail_after(_CANCEL):
                await self._watcher.client.cancel(self._job_id)
            stats.canceled()
        except (TrainingError, TimeoutError) as error:
            said = str(error) or "the service does not answer."
            raise JobTimedOut(
                f"{job}. It could not be canceled and may still run: {said}", job_id=self._job_id, over=False
            ) from error
        with suppress(TrainingError), move_on_after(_DRAIN):
            await self.follow(None)
        with suppress(TrainingError), move_on_after(_CANCEL):
            status = await self._watcher.client.status(self._job_id)
            if status.state is JobState.SUCCEEDED:  # in the last moment
                return self._outcome(status)
        raise JobTimedOut(
            f"{job}, and was canceled. Allow it more time, or find out why it takes so long.", job_id=self._job_id
        )

    async def save_cursor(self) -> None:
        """Store how far the log has been told."""
        if self._offset != self._saved_offset:
            cursor = {"job_id": self._job_id, "offset": self._offset, "metrics": self._metrics}
            await self._save(CURSOR_KEY, cursor)
            self._saved_offset = self._offset

    async def _save(self, key: str, value: Any) -> None:
        try:
            await self._store(key, value)
        except TrainingError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever ails Airflow's database: the job is well, and goes on
            self._log.log(logging.WARNING, f"The XCom {key} could not be stored: {error}")

    async def _next(self, news: Callable[[], Awaitable[News]], limits: Limits | None) -> News | None:
        ended = self._status is not None and self._status.state.ended
        end = limits.next_end(self._status) if limits and not ended else None
        if not end:
            return await _or_none(news)
        seconds = (end[0] - datetime.now(timezone.utc)).total_seconds()
        # Of a flood there are always news: they are not waited for.
        if seconds <= 0:
            raise _TimeIsUp(end[1])
        try:
            with fail_after(seconds):
                return await _or_none(news)
        except TimeoutError:
            raise _TimeIsUp(end[1]) from None

    async def _tell(self, news: News) -> None:
        self._status = news.status
        if news.status != self._published or time.monotonic() >= self._publish_again:
            await self._save(STATUS_KEY, news.status.to_wire())
            self._published, self._publish_again = news.status, self._later(STATUS_INTERVAL)
        self._metrics = await write_lines(self._log, news.records, self._metrics)
        if news.records and (written := news.records[-1].time):
            stats.told(written)
        self._last_lines.extend(record.line[:_LONGEST_LAST_LINE] for record in news.records)
        self._offset = news.offset
        if time.monotonic() >= self._save_again:
            await self.save_cursor()
            self._save_again = self._later(CURSOR_INTERVAL)

    def _later(self, seconds: float) -> float:
        """When something is stored again that is to be stored each so many seconds, where there is time for it."""
        stretched = self._watcher.followed * _BETWEEN_WRITES
        # Those who began together do not write together for ever.
        spread = random.uniform(0.5, 1)  # noqa: S311 - no secret depends on it
        return time.monotonic() + (stretched * spread if stretched > seconds else seconds)


async def _or_none(news: Callable[[], Awaitable[News]]) -> News | None:
    try:
        return await news()
    except StopAsyncIteration:
        return None
