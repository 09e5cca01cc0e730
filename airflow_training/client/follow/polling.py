"""Following a job of a service that has to be asked again and again: it does not know the watch extension."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from anyio import fail_after

from airflow_training.api.log import LogRecord
from airflow_training.api.status import JobStatus
from airflow_training.client.client import TrainingClient
from airflow_training.client.follow.log_tail import LogTail
from airflow_training.client.follow.update import INTERVAL, News
from airflow_training.exceptions import TrainingError

# Seconds that a log may take while its job runs: the job's status must not wait for it.
_LOG_PATIENCE = 30.0
# A job that writes nothing is asked less and less often whether it does, down to once in so many seconds.
_LONGEST_PAUSE = 5.0
_LONGER = 1.5
# Those who began together do not ask together for ever.
_JITTER = 0.1


class StatusList:
    """The statuses of many jobs, of which one request tells all.

    Args:
        client: The service.
        followers: Tells how many jobs are followed: one alone is asked for by its id.
    """

    def __init__(self, client: TrainingClient, followers: Callable[[], int]) -> None:
        self._client = client
        self._followers = followers
        self._listing: asyncio.Task[dict[str, JobStatus]] | None = None
        self._good_until = 0.0

    async def status(self, job_id: str) -> JobStatus:
        """Tell where a job stands, as it was at most a second ago.

        Raises:
            JobLost: The service does not know it.
        """
        if self._followers() < 2:
            return await self._client.status(job_id)
        if not self._listing or (self._listing.done() and time.monotonic() >= self._good_until):
            self._listing = asyncio.ensure_future(self._list())
        # A finished job may have dropped off the list.
        return (await asyncio.shield(self._listing)).get(job_id) or await self._client.status(job_id)

    async def _list(self) -> dict[str, JobStatus]:
        try:
            return {status.job_id: status for status in await self._client.jobs()}
        finally:
            self._good_until = time.monotonic() + INTERVAL * (1 - _JITTER)


async def poll(client: TrainingClient, statuses: StatusList, job_id: str, tail: LogTail) -> AsyncGenerator[News, None]:
    """Ask for the status of a job and for its log, until it has ended.

    Args:
        client: The service.
        statuses: The statuses of its jobs.
        job_id: The job.
        tail: How far its log has been read.
    """
    known: JobStatus | None = None
    pause, read_again = 0.0, 0.0
    while True:
        status = await statuses.status(job_id)
        # The log is read after the status: when the status is final, the log is complete.
        if status != known or time.monotonic() >= read_again:
            began = tail.read_until
            async for records in _new_lines(client, job_id, tail, last=status.state.ended):
                yield News(status, records, tail.offset)
            if status.state.ended:
                yield News(status, [], tail.offset, last=True)
                return
            quiet = tail.read_until == began and status == known
            pause = min(max(pause, INTERVAL) * _LONGER, _LONGEST_PAUSE) if quiet else INTERVAL
            read_again, known = time.monotonic() + pause * _jittered(), status
        else:
            yield News(status, [], tail.offset)
        await asyncio.sleep(INTERVAL * _jittered())


def _jittered() -> float:
    return 1 - random.uniform(0, _JITTER)  # noqa: S311 - nothing depends on its being hard to guess


async def _new_lines(
    client: TrainingClient, job_id: str, tail: LogTail, *, last: bool
) -> AsyncIterator[list[LogRecord]]:
    """Give what is new, in pieces of bounded size and at least one, which may be empty.

    A log that cannot be read must not fail a job: what is missing now is read the next time.

    Args:
        client: The service.
        job_id: The job.
        tail: How far the log has been read.
        last: Whether the log is complete: a line without an end is delivered too.
    """
    more = True
    while more:
        try:
            with fail_after(None if last else _LOG_PATIENCE):
                chunk = await client.log(job_id, tail.read_until)
        except TimeoutError:
            yield []
            return
        except TrainingError as error:
            yield [LogRecord(f"The log of the job could not be read: {error}")] if last else []
            return
        more = len(chunk.content) >= client.LOG_CHUNK
        # A megabyte of records takes longer than the event loop may stand still.
        yield await asyncio.to_thread(
            tail.take, chunk.content, ndjson=chunk.ndjson, size=chunk.size, more=more, last=last and not more
        )
