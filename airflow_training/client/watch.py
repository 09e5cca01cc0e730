"""Following a job to its end: written once, used by the worker and by the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from airflow_training.client.training import TrainingClient
from airflow_training.exceptions import JobLost, ServiceError
from airflow_training.jobs.log import LogDecoder, LogRecord
from airflow_training.jobs.status import JobStatus

INTERVAL = 1.0
"""Seconds between two looks at a job: the freshness that trainingClient promised."""


@dataclass(frozen=True)
class News:
    """What one look at a job brought.

    Attributes:
        status: Where the job stands.
        records: The log lines that are new.
        offset: The byte of the log from which following can be resumed: all before it was delivered.
    """

    status: JobStatus
    records: list[LogRecord]
    offset: int


async def follow(client: TrainingClient, job_id: str, offset: int = 0) -> AsyncIterator[News]:
    """Follow a job to its end; the last news carry its final status and the last lines of its log.

    Args:
        client: The service.
        job_id: The job.
        offset: The byte of the log to begin at.

    Raises:
        JobLost: The service forgot the job.
        ServiceError: The service cannot be asked any more; the job may well run on.
    """
    tail = LogTail(client, job_id, offset)
    while True:
        status = await _status(client, job_id)
        # The log is read after the status: when the status is final, the log is complete.
        async for records in tail.read(to_the_end=status.state.ended):
            yield News(status, records, tail.offset)
        if status.state.ended:
            return
        await asyncio.sleep(INTERVAL)


async def _status(client: TrainingClient, job_id: str) -> JobStatus:
    try:
        return await client.status(job_id)
    except JobLost:
        # A service that just restarted may not have read its jobs yet: it is asked once more.
        await asyncio.sleep(INTERVAL)
        return await client.status(job_id)


class LogTail:
    """A job's log, read on from where the last read ended.

    Attributes:
        offset: All bytes before this one were delivered as whole lines.
    """

    def __init__(self, client: TrainingClient, job_id: str, offset: int) -> None:
        self.offset = offset
        self._client = client
        self._job_id = job_id
        self._read_until = offset
        self._decoder: LogDecoder | None = None

    async def read(self, *, to_the_end: bool) -> AsyncIterator[list[LogRecord]]:
        """Give what is new, in pieces of bounded size and at least one, which may be empty.

        A log that cannot be read must not fail a job: what is missing now is read the next time.

        Args:
            to_the_end: Whether the log is complete: a line without an end is delivered too.
        """
        more = True
        while more:
            try:
                chunk = await self._client.log(self._job_id, self._read_until)
            except ServiceError as error:
                yield [LogRecord(f"The log of the job could not be read: {error}")] if to_the_end else []
                return
            self._decoder = self._decoder or (LogDecoder(ndjson=chunk.ndjson) if chunk.content else None)
            records = self._decoder.feed(chunk.content) if self._decoder else []
            self._read_until += len(chunk.content)
            more = len(chunk.content) >= self._client.LOG_CHUNK
            if to_the_end and not more and self._decoder:
                records += self._decoder.flush()
            self.offset = self._read_until - (self._decoder.pending if self._decoder else 0)
            yield records
