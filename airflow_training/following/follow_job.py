"""What a running job tells its user in Airflow: lines in the task log, the status in XCom.

The worker and the triggerer follow a job by this one function, so that the two cannot drift apart.
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
from airflow_training.client.follow.subscription import Follower
from airflow_training.client.follow.watcher import Watcher
from airflow_training.client.retry import RetryPolicy
from airflow_training.exceptions import JobTimedOut, TrainingError
from airflow_training.following import stats
from airflow_training.following.deadlines import Limits
from airflow_training.following.task_log import LogWriter, Span, TaskLog, Written
from airflow_training.shielded import finish
from airflow_training.xcom_keys import CURSOR_KEY, STATUS_KEY

STATUS_INTERVAL = 60.0
"""Seconds after which the status is published again, changed or not, where few jobs are followed.

It is trainingClient's minute.
"""

CURSOR_INTERVAL = 5.0
"""Seconds between two savings of the cursor, where the log grows and few jobs are followed."""

PATIENCE = RetryPolicy(budget=15 * 60)
"""How long a service may be away while a job runs: one that is being upgraded does not end a training."""

# Seconds between two writes of a kind into XCom on average, whichever job they are for. Each takes Airflow 26 ms and a
# round of its own, in which it looks into its database for 13 ms: a triggerer with 300 jobs took 52 % of a core with
# these, and 66 % with twice as many.
_BETWEEN_WRITES = 0.5
# Seconds to wait until the cursor is saved when we are told to end. It is saved in any case, but a triggerer that stops
# gets no reply any more; to have a job canceled; for what a canceled job still says.
_LAST_WORD = 1.0
_CANCEL = 60.0
_DRAIN = 60.0

Store = Callable[[str, Any], Awaitable[None]]


class Superseded(Exception):
    """A store's way to say that the task has gone on with another job: this one is not to be reported on any more."""


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
    """Follow a job to its end and report on it; end it when it takes too long.

    Args:
        watcher: Looks after the jobs of the service.
        job_id: The job.
        log: The task log.
        lines: The same, for every line of the job's log, with the time at which it was written.
        store: Stores a value in the task's XCom: the status at every change and each minute, and the cursor.
        limits: How long the job may take.
        cursor: The stored cursor of an earlier life, from which the log goes on.
        shown: The lines that other logs of the same try hold.

    Raises:
        JobLost: The service forgot the job.
        JobTimedOut: It took longer than it may.
        Superseded: The store said so.
        ServiceError: The service cannot be asked any more.
    """
    known = isinstance(cursor, dict) and cursor.get("job_id") == job_id
    written = Written(int(cursor["offset"]), dict(cursor["metrics"])) if known else Written(0, {})
    reporter = _Reporter(watcher, job_id, log, store, LogWriter(lines, written, shown))
    try:
        return await reporter.report(limits)
    except asyncio.CancelledError:
        with move_on_after(_LAST_WORD):
            await finish(reporter.save_cursor())
        raise


class _Reporter:
    def __init__(self, watcher: Watcher, job_id: str, log: TaskLog, store: Store, writer: LogWriter) -> None:
        self._watcher = watcher
        self._job_id = job_id
        self._log = log
        self._store = store
        self._writer = writer
        # What was written at the time of the saving before. What came later may still be on its way to the log's file,
        # and would be lost with its triggerer; what is there already is not written again, if lines have times.
        self._settled = writer.written
        self._saved = writer.written
        self._save_again = self._later(CURSOR_INTERVAL)
        self._published: JobStatus | None = None
        self._publish_again = 0.0

    async def report(self, limits: Limits) -> Outcome:
        """Follow the job to its end, or to the first of its limits."""
        with self._watcher.follower(self._job_id, self._saved.offset, self._writer.write) as follower:
            try:
                await self._follow(follower, limits)
            except _TimeIsUp as limit:
                return await self._end(follower, str(limit))
        return self._outcome(follower.status)

    async def _follow(self, follower: Follower, limits: Limits | None) -> None:
        ended = False
        while not ended:
            await self._wait(follower, limits)
            # It may end while this is stored, and is then told once more.
            ended = follower.ended
            await self._publish(follower.status)
            if ended or time.monotonic() >= self._save_again:
                await self.save_cursor()
                self._settled = self._writer.written
                self._save_again = self._later(CURSOR_INTERVAL)

    async def _wait(self, follower: Follower, limits: Limits | None) -> None:
        """Wait for something to publish or to save, or for the first of the limits."""
        seconds = min(self._save_again, self._publish_again or math.inf) - time.monotonic()
        ended = follower.latest is not None and follower.latest.state.ended
        if limits and not ended and (end := limits.next_end(follower.latest)):
            left = (end[0] - datetime.now(timezone.utc)).total_seconds()
            if left <= 0:
                raise _TimeIsUp(end[1])
            seconds = min(seconds, left)
        await follower.changed(seconds)

    async def _publish(self, status: JobStatus | None) -> None:
        if status and (status != self._published or time.monotonic() >= self._publish_again):
            await self._save(STATUS_KEY, status.to_wire())
            self._published, self._publish_again = status, self._later(STATUS_INTERVAL)

    def _outcome(self, status: JobStatus | None) -> Outcome:
        if status is None:
            raise AssertionError("a job that was followed to its end has a status")
        return Outcome(status, tuple(self._writer.last_lines), self._writer.written.metrics)

    async def _end(self, follower: Follower, limit: str) -> Outcome:
        """Have the job canceled, and tell what it still has to say."""
        job = f"The training job {follower.status.name if follower.status else ''} ({self._job_id}) {limit}"
        self._log.log(logging.WARNING, f"{job}; it is being canceled")
        try:
            with fail_after(_CANCEL):
                await self._watcher.client.cancel(self._job_id)
            stats.canceled()
        except (TrainingError, TimeoutError) as error:
            said = str(error) or "the service does not answer."
            raise JobTimedOut(
                f"{job}. It could not be canceled and may still run: {said}",
                code="AT-412",
                job_id=self._job_id,
                over=False,
            ) from error
        with suppress(TrainingError, Superseded):
            await self._drain(follower)
        became = "was canceled"
        with suppress(TrainingError), move_on_after(_CANCEL):
            status = await self._watcher.client.status(self._job_id)
            if status.state is JobState.SUCCEEDED:  # in the last moment
                return self._outcome(status)
            if status.state is JobState.FAILED:  # a slow service has counted the time too, or it failed by itself
                became = f"failed before it could be canceled: {status.message.rstrip('.')}"
        raise JobTimedOut(
            f"{job}, and {became}. Allow it more time, or find out why it takes so long.",
            code="AT-411",
            job_id=self._job_id,
        )

    async def _drain(self, follower: Follower) -> None:
        """Write the rest of the log of a job that was canceled, however long that takes, unless the job runs on."""
        while True:
            before = self._writer.written
            with move_on_after(_DRAIN):
                return await self._follow(follower, None)
            has_ended = follower.latest is not None and follower.latest.state.ended
            if not has_ended or self._writer.written == before:
                return None

    async def save_cursor(self) -> None:
        """Store how far the log has been told."""
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
        except Exception as error:  # noqa: BLE001 - whatever ails Airflow's database: the job is well, and goes on
            self._log.log(logging.WARNING, f"The XCom {key} could not be stored: {error}")

    def _later(self, seconds: float) -> float:
        """When something is stored again that is to be stored each so many seconds, where there is time for it."""
        stretched = self._watcher.followed * _BETWEEN_WRITES
        # Those who began together do not write together for ever.
        spread = random.uniform(0.5, 1)  # noqa: S311 - no secret depends on it
        return time.monotonic() + (stretched * spread if stretched > seconds else seconds)
