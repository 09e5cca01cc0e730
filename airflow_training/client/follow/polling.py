"""Following a job of a service without the watch extension, by polling."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from anyio import fail_after

from airflow_training.api.status import JobStatus
from airflow_training.api.watch import WatchEvent
from airflow_training.client.client import TrainingClient
from airflow_training.client.follow.log_tail import LogTail
from airflow_training.client.follow.update import INTERVAL
from airflow_training.exceptions import TrainingError

# Seconds that a log request may take while its job runs: it must not delay the status.
_LOG_TIMEOUT = 30.0
# The log of a quiet job is polled at growing intervals, up to this many seconds.
_MAX_PAUSE = 5.0
_PAUSE_FACTOR = 1.5
# Subscriptions that began together drift apart.
_JITTER = 0.1


class StatusList:
    """The statuses of many jobs, from one request.

    Args:
        client: The service.
        followed: Returns the number of followed jobs; a single one is requested by its id.
    """

    def __init__(self, client: TrainingClient, followed: Callable[[], int]) -> None:
        self._client = client
        self._followed = followed
        self._listing: asyncio.Task[dict[str, JobStatus]] | None = None
        self._valid_until = 0.0

    async def status(self, job_id: str) -> JobStatus:
        """Return a job's status, at most a second old.

        Raises:
            JobLost: The service does not know it.
        """
        if self._followed() < 2:
            return await self._client.status(job_id)
        if not self._listing or (self._listing.done() and time.monotonic() >= self._valid_until):
            self._listing = asyncio.ensure_future(self._list())
        # A finished job may have dropped off the list.
        return (await asyncio.shield(self._listing)).get(job_id) or await self._client.status(job_id)

    async def _list(self) -> dict[str, JobStatus]:
        try:
            return {status.job_id: status for status in await self._client.jobs()}
        finally:
            self._valid_until = time.monotonic() + INTERVAL * (1 - _JITTER)


async def poll(
    client: TrainingClient, statuses: StatusList, job_id: str, tail: LogTail
) -> AsyncGenerator[WatchEvent, None]:
    """Poll the status and the log of a job until it has ended, and yield the events that a watch would return.

    Args:
        client: The service.
        statuses: The statuses of its jobs.
        job_id: The job.
        tail: The tail of its log; each event is fed to it before the next is requested.
    """
    known: JobStatus | None = None
    pause, next_read = 0.0, 0.0
    while True:
        status = await statuses.status(job_id)
        # The log is read after the status: it is complete if the status is final.
        if status != known or time.monotonic() >= next_read:
            began = tail.read_until
            async for event in _read_log(client, job_id, status, tail):
                yield event
            if status.state.ended:
                return
            quiet = tail.read_until == began and status == known
            pause = min(max(pause, INTERVAL) * _PAUSE_FACTOR, _MAX_PAUSE) if quiet else INTERVAL
            next_read, known = time.monotonic() + pause * _jittered(), status
        else:
            yield _event(job_id, status, tail)
        await asyncio.sleep(INTERVAL * _jittered())


def _jittered() -> float:
    return 1 - random.uniform(0, _JITTER)  # noqa: S311 - not a secret


def _event(job_id: str, status: JobStatus, tail: LogTail, log_error: str = "") -> WatchEvent:
    """An event without log."""
    offset = tail.read_until
    return WatchEvent(job_id, status=status, offset=offset, size=offset, log_error=log_error)


async def _read_log(client: TrainingClient, job_id: str, status: JobStatus, tail: LogTail) -> AsyncIterator[WatchEvent]:
    """Read the new part of a log, as at least one event of bounded size.

    A log that cannot be read does not fail the job: the missing part is read the next time.
    """
    more = True
    while more:
        offset = tail.read_until
        try:
            with fail_after(None if status.state.ended else _LOG_TIMEOUT):
                chunk = await client.log(job_id, offset)
        except TimeoutError:
            yield _event(job_id, status, tail)
            return
        except TrainingError as error:
            yield _event(job_id, status, tail, str(error))
            return
        end = offset + len(chunk.content)
        more = len(chunk.content) >= client.LOG_CHUNK
        size = max(chunk.size or 0, end + more) if more else end
        yield WatchEvent(job_id, True, status, "", offset, chunk.content, size, chunk.ndjson)
