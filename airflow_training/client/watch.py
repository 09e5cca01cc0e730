"""Following a job to its end: written once, used by the worker and by the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from airflow_training.client.training import LogChunk, TrainingClient
from airflow_training.exceptions import TrainingError
from airflow_training.jobs.log import LogDecoder, LogRecord
from airflow_training.jobs.status import JobStatus

INTERVAL = 1.0
"""Seconds between two looks at a job: the freshness that trainingClient promised."""

MOST_AT_ONCE = 4 * 1024 * 1024
"""Bytes of log that one look at a job delivers; of what the job wrote beyond, the end only."""

_END = 256 * 1024
# Seconds that a log may take while its job runs: the job's status must not wait for it.
_LOG_PATIENCE = 30.0
# A record on the wire may be this much longer than its line; lines that are cut count at least this part of them.
_FRAMING = 8


@dataclass(frozen=True)
class News:
    """What one look at a job brought, or a part of it.

    Attributes:
        status: Where the job stands.
        records: The log lines that are new.
        offset: The byte of the log from which following can be resumed: all before it was delivered.
    """

    status: JobStatus
    records: list[LogRecord]
    offset: int


async def follow(client: TrainingClient, job_id: str, offset: int = 0) -> AsyncGenerator[News, None]:
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
        status = await client.status(job_id)
        # The log is read after the status: when the status is final, the log is complete.
        async for records in tail.read(to_the_end=status.state.ended):
            yield News(status, records, tail.offset)
        if status.state.ended:
            return
        await asyncio.sleep(INTERVAL)


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
        self._within_a_line = False

    async def read(self, *, to_the_end: bool) -> AsyncIterator[list[LogRecord]]:
        """Give what is new, in pieces of bounded size and at least one, which may be empty.

        A log that cannot be read must not fail a job: what is missing now is read the next time.

        Args:
            to_the_end: Whether the log is complete: a line without an end is delivered too.
        """
        delivered = 0
        more = True
        while more:
            try:
                read = self._client.log(self._job_id, self._read_until)
                chunk = await asyncio.wait_for(read, None if to_the_end else _LOG_PATIENCE)
            except asyncio.TimeoutError:
                yield []
                return
            except TrainingError as error:
                yield [LogRecord(f"The log of the job could not be read: {error}")] if to_the_end else []
                return
            self._read_until += len(chunk.content)
            more = len(chunk.content) >= self._client.LOG_CHUNK
            records = await self._decode(chunk, flush=to_the_end and not more)
            delivered += max(sum(len(record.line) for record in records), len(chunk.content) // _FRAMING)
            if more and delivered >= MOST_AT_ONCE:
                delivered = 0
                records += self._leave_out(chunk.size)
            yield records

    async def _decode(self, chunk: LogChunk, *, flush: bool) -> list[LogRecord]:
        if chunk.content and not self._decoder:
            self._decoder = LogDecoder(ndjson=chunk.ndjson)
        if not self._decoder:
            return []
        # A megabyte of records takes longer than the event loop may stand still.
        records = await asyncio.to_thread(self._decoder.feed, chunk.content)
        if flush:
            records += self._decoder.flush()
        if self._within_a_line:
            if not records:
                return []
            self._within_a_line = False
            del records[0]
        self.offset = self._read_until - self._decoder.pending
        return records

    def _leave_out(self, size: int | None) -> list[LogRecord]:
        """Go on near the end of a log that is longer than what is delivered at once, and say so."""
        # One byte earlier, so that what comes before the first line feed never is a whole line.
        begin = (size or 0) - _END - 1
        if begin <= self._read_until or not self._decoder:
            return []
        records = self._decoder.flush()
        said = f"[about {begin - self._read_until:,} bytes of the log are left out here: there is too much at once]"
        self._read_until = begin
        self._within_a_line = True
        return [*records, LogRecord(said, records[-1].time if records else None)]
