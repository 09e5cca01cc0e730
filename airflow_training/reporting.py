"""What a running job tells its user in Airflow: lines in the task log, the status in XCom.

The worker and the triggerer follow a job by this one function, so that the two cannot drift apart.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_training.client.retry import RetryPolicy
from airflow_training.client.training import TrainingClient
from airflow_training.client.watch import follow
from airflow_training.jobs.log import LogRecord
from airflow_training.jobs.status import JobStatus

STATUS_KEY = "training_status"
"""The XCom that holds the status object of the running job."""

STATUS_INTERVAL = 60.0
"""Seconds after which the status is published again, changed or not: trainingClient's minute."""

PATIENCE = RetryPolicy(budget=15 * 60)
"""How long a service may be away while a job runs: one that is being upgraded does not end a training."""

_LAST_LINES = 10


class TaskLog(Protocol):
    """The part of Airflow's logger that is needed here."""

    def info(self, event: str, **kwargs: Any) -> Any:
        """Write a line."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: Its final status.
        last_lines: The end of its log.
    """

    status: JobStatus
    last_lines: Sequence[str] = ()


async def report(
    client: TrainingClient, job_id: str, *, log: TaskLog, publish: Callable[[dict[str, Any]], Awaitable[None]]
) -> Outcome:
    """Follow a job to its end and report on it.

    Args:
        client: The service.
        job_id: The job.
        log: The task log, which receives every line of the job's log with the time at which it was written.
        publish: Stores the status object in XCom; called at every change and each minute.

    Raises:
        JobLost: The service forgot the job.
        ServiceError: The service cannot be asked any more.
    """
    last_lines: deque[str] = deque(maxlen=_LAST_LINES)
    published: JobStatus | None = None
    publish_again = 0.0
    async for news in follow(client, job_id):
        if news.status != published or time.monotonic() >= publish_again:
            await publish(news.status.to_wire())
            published, publish_again = news.status, time.monotonic() + STATUS_INTERVAL
        if news.records:
            # Airflow writes a line in about half a millisecond; the event loop has other jobs to follow.
            await asyncio.to_thread(_write, log, news.records)
        last_lines.extend(record.line for record in news.records)
    if published is None:
        raise AssertionError("following a job yields its status at least once")
    return Outcome(published, tuple(last_lines))


def _write(log: TaskLog, records: Sequence[LogRecord]) -> None:
    for record in records:
        # One call site with the same fields: the log page then drops lines that a restarted triggerer repeats.
        log.info(record.line, **({"timestamp": record.time} if record.time else {}))
