"""Follow a job from Airflow to its end: its lines go to the task log, its status to XCom.

The worker and the triggerer share this function, so that they cannot diverge.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from anyio import fail_after, move_on_after

from airflow_training.api.status import JobState, JobStatus
from airflow_training.client.follow.subscription import Subscription
from airflow_training.client.follow.watcher import Watcher
from airflow_training.exceptions import JobTimedOut, TrainingError
from airflow_training.following import stats
from airflow_training.following.deadlines import Limits
from airflow_training.following.task_log import LogWriter, Span, TaskLog, Written
from airflow_training.shielded import run_to_completion
from airflow_training.xcom_keys import CURSOR_KEY, STATUS_KEY

STATUS_INTERVAL = 60.0
"""Seconds after which the status is published again, changed or not, if few jobs are followed.

trainingClient has the same interval.
"""

CURSOR_INTERVAL = 5.0
"""Seconds between two writes of the cursor, if the log grows and few jobs are followed."""

# Average seconds between two XCom writes of a kind, for all jobs together. Each takes Airflow 26 ms and one round of
# its supervisor, which queries the database for 13 ms: a triggerer with 300 jobs took 52 % of a core at this rate, and
# 66 % at twice the rate.
_BETWEEN_WRITES = 0.5
# Seconds to wait for the last write of the cursor after a cancellation. The write arrives in any case, but a triggerer
# that stops gets no response any more.
_SAVE_TIMEOUT = 1.0
_CANCEL_TIMEOUT = 60.0
# Seconds for the rest of a canceled job's log.
_DRAIN_TIMEOUT = 60.0

Store = Callable[[str, Any], Awaitable[None]]


class Superseded(Exception):
    """Raised by a store if the task continued with another job: this job is not reported any more."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: Its final status.
        last_lines: The end of its log.
        metrics: The metrics in its log: name → value.
    """

    status: JobStatus
    last_lines: Sequence[str] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON."""
        return {
            "status": self.status.to_wire(),
            "last_lines": list(self.last_lines),
            "metrics": dict(self.metrics),
        }

    @classmethod
    def from_dict(cls, outcome: Mapping[str, Any]) -> Outcome:
        """Read what `to_dict` wrote."""
        return cls(JobStatus.model_validate(outcome["status"]), outcome["last_lines"], outcome["metrics"])


class _LimitExceeded(Exception):
    """A limit was exceeded; the message says which."""


async def report(
    watcher: Watcher,
    job_id: str,
    *,
    log: TaskLog,
    lines: TaskLog,
    store: Store,
    limits: Limits,
    cursor: Any = None,
    shown: Sequence[Span] = (),
) -> Outcome:
    """Follow a job to its end and report it; cancel it if it takes too long.

    Args:
        watcher: Watches the jobs of the service.
        job_id: The job.
        log: The task log.
        lines: The task log for the lines of the job, each with its own time.
        store: Stores a value in the task's XCom: the status at every change and each minute, and the cursor.
        limits: How long the job may take.
        cursor: The stored cursor of an earlier process, from which the log continues.
        shown: The lines in other logs of the same try.

    Raises:
        JobLost: The service does not know the job any more.
        JobTimedOut: It exceeded a limit.
        Superseded: The store raised it.
        ServiceError: The service is unavailable for too long, or refuses access.
    """
    matches = isinstance(cursor, dict) and cursor.get("job_id") == job_id
    written = Written(int(cursor["offset"]), dict(cursor["metrics"])) if matches else Written(0, {})
    reporter = _Reporter(watcher, job_id, log, store, LogWriter(lines, written, shown))
    try:
        return await reporter.report(limits)
    except asyncio.CancelledError:
        with move_on_after(_SAVE_TIMEOUT):
            await run_to_completion(reporter.save_cursor())
        raise


class _Reporter:
    # A triggerer has one for each of many jobs.
    __slots__ = (
        "_job_id",
        "_log",
        "_publish_again",
        "_published",
        "_save_again",
        "_saved",
        "_settled",
        "_store",
        "_watcher",
        "_writer",
    )

    def __init__(self, watcher: Watcher, job_id: str, log: TaskLog, store: Store, writer: LogWriter) -> None:
        self._watcher = watcher
        self._job_id = job_id
        self._log = log
        self._store = store
        self._writer = writer
        # What had been written at the previous save. Later lines may not have reached the log's file yet, and would be
        # lost with the triggerer; those that have reached it are not written again, if lines have times.
        self._settled = writer.written
        self._saved = writer.written
        self._save_again = self._later(CURSOR_INTERVAL)
        self._published: JobStatus | None = None
        self._publish_again = 0.0

    async def report(self, limits: Limits) -> Outcome:
        """Follow the job to its end, or to the first of its limits."""
        with self._watcher.subscribe(self._job_id, self._saved.offset, self._writer.write) as subscription:
            try:
                await self._follow(subscription, limits)
            except _LimitExceeded as limit:
                return await self._end(subscription, str(limit))
        return self._outcome(subscription.status)

    async def _follow(self, subscription: Subscription, limits: Limits | None) -> None:
        ended = False
        while not ended:
            await self._wait(subscription, limits)
            # It may end while this is stored, and is published once more then.
            ended = subscription.ended
            await self._publish(subscription.status)
            if ended or time.monotonic() >= self._save_again:
                await self.save_cursor()
                self._settled = self._writer.written
                self._save_again = self._later(CURSOR_INTERVAL)

    async def _wait(self, subscription: Subscription, limits: Limits | None) -> None:
        """Wait for something to publish or to save, or for the earliest limit."""
        seconds = min(self._save_again, self._publish_again or math.inf) - time.monotonic()
        ended = subscription.latest is not None and subscription.latest.state.ended
        if limits and not ended and (end := limits.next_end(subscription.latest)):
            left = (end[0] - datetime.now(timezone.utc)).total_seconds()
            if left <= 0:
                raise _LimitExceeded(end[1])
            seconds = min(seconds, left)
        await subscription.changed(seconds)

    async def _publish(self, status: JobStatus | None) -> None:
        if status and (status != self._published or time.monotonic() >= self._publish_again):
            await self._save(STATUS_KEY, status.to_wire())
            self._published, self._publish_again = status, self._later(STATUS_INTERVAL)

    def _outcome(self, status: JobStatus | None) -> Outcome:
        if status is None:
            raise AssertionError("a job that was followed to its end has a status")
        return Outcome(status, tuple(self._writer.last_lines), self._writer.written.metrics)

    async def _end(self, subscription: Subscription, limit: str) -> Outcome:
        """Cancel the job and report the rest of its log."""
        name = subscription.status.name if subscription.status else ""
        self._log.log(logging.WARNING, f"The training job {name} ({self._job_id}) {limit}; it is being canceled")
        try:
            with fail_after(_CANCEL_TIMEOUT):
                await self._watcher.client.cancel(self._job_id)
            stats.canceled()
        except (TrainingError, TimeoutError) as error:
            reason = str(error) or "the service does not respond."
            raise JobTimedOut(
                f"The training job {name} ({self._job_id}) {limit}. It could not be canceled and may still run:"
                f" {reason}",
                code="AT-412",
                job_id=self._job_id,
                over=False,
            ) from error
        with suppress(TrainingError, Superseded):
            await self._drain(subscription)
        became = "was canceled"
        with suppress(TrainingError), move_on_after(_CANCEL_TIMEOUT):
            status = await self._watcher.client.status(self._job_id)
            if status.state is JobState.SUCCEEDED:  # just before the cancellation
                return self._outcome(status)
            if status.state is JobState.FAILED:  # by itself, or the service enforced the same limit
                became = f"failed before it could be canceled: {status.message.rstrip('.')}"
        raise JobTimedOut(
            f"The training job {name} ({self._job_id}) {limit}, and {became}. Allow it more time, or find out why it"
            " takes so long.",
            code="AT-411",
            job_id=self._job_id,
        )

    async def _drain(self, subscription: Subscription) -> None:
        """Write the rest of a canceled job's log, however long that takes, unless the job keeps running."""
        while True:
            before = self._writer.written
            with move_on_after(_DRAIN_TIMEOUT):
                return await self._follow(subscription, None)
            has_ended = subscription.latest is not None and subscription.latest.state.ended
            if not has_ended or self._writer.written == before:
                return None

    async def save_cursor(self) -> None:
        """Store how far the log has been written."""
        written = self._settled if self._writer.has_times else self._writer.written
        if written.offset != self._saved.offset:
            cursor = {"job_id": self._job_id, "offset": written.offset, "metrics": dict(written.metrics)}
            await self._save(CURSOR_KEY, cursor)
            self._saved = written

    async def _save(self, key: str, value: Any) -> None:
        try:
            await self._store(key, value)
        except Superseded:
            raise
        except Exception as error:  # noqa: BLE001 - the job is well, whatever Airflow's error
            self._log.log(logging.WARNING, f"The XCom {key} could not be stored: {error}")

    def _later(self, seconds: float) -> float:
        """When to store something again after so many seconds, or later if many jobs are followed."""
        stretched = self._watcher.followed * _BETWEEN_WRITES
        # Jobs that start together do not write together forever.
        spread = random.uniform(0.5, 1)  # noqa: S311 - no secret depends on it
        return time.monotonic() + (stretched * spread if stretched > seconds else seconds)
