"""Watching many jobs with one long-poll request, and the fair division of a reply between their logs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from airflow_training.api.log import NDJSON
from airflow_training.api.watch import WatchCursor, WatchRequest, write_event, write_unknown
from airflow_training.service.http.auth import Body, Reader, ServiceDep, recheck_access
from airflow_training.service.http.errors import COMMON_ERRORS, error_responses, invalid_request
from airflow_training.service.runners.supervisor.job_log import RECORDS_FILE
from airflow_training.service.scheduling.job import JobKey
from airflow_training.service.scheduling.status_cache import CachedStatus, StatusCache

router = APIRouter(prefix="/watch", tags=["jobs"], responses=COMMON_ERRORS)

MAX_REPLY = 256 * 1024
"""Bytes of log in a reply."""

MAX_SHARE = 64 * 1024
"""Bytes of one log in a reply, unless its first record is longer."""

# Logs are written by other processes, and a client disconnects without an event here: both are polled.
_INTERVAL = 0.2
# A look at very many logs takes a while: the pause after it is ten times as long, but no longer than this.
_PAUSE_FACTOR, _MAX_PAUSE = 10, 1.0

_MAX_RECORD = 1024 * 1024
# Most records are shorter, so that one read is enough.
_FIRST_READ = 1024

_EXAMPLE = {"jobs": {"6f2c1c5e-4f0e-5d1b-9a55-3a1c2b0e7d11": {"offset": 0, "etag": ""}}, "wait": 20}
# FastAPI does not read the body, since it may come without a Content-Type.
_CONTENT = {"schema": {"$ref": "#/components/schemas/WatchRequest"}, "example": _EXAMPLE}
_ANSWER = """{"job_id": "6f2c1c5e-4f0e-5d1b-9a55-3a1c2b0e7d11", "etag": "0c7d4b1f9e2a", "offset": 0, "bytes": 60, \
"size": 60}
{"time": "2026-11-24T09:00:03.000000Z", "line": "epoch 1/50"}
"""


@router.post(
    "",
    response_class=Response,
    operation_id="watch_jobs",
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": _CONTENT}}},
    responses={
        200: {
            "content": {NDJSON: {"example": _ANSWER}},
            "description": "For each job with an event a line of JSON, followed by `bytes` bytes of its log.",
        },
        **error_responses(400, 413, 422),
    },
)
async def watch(request: Request, client: Reader, body: Body, service: ServiceDep) -> Response:
    """Watch jobs with a long poll: the reply comes with the first event, or empty after `wait` seconds.

    An event is a status with another ETag than the client's, whole NDJSON records of the log behind the client's
    offset, or both. New records alone are batched for `batch_window` seconds from the beginning of the request, unless
    the job has ended or the reply is full. `size` is the size of the whole log: once the status is final, the log is
    complete up to there. The event of a job that the tenant does not have is `unknown`, and is returned at once.

    A reply has at most 256 KiB of log, and 64 KiB of one job. They are divided equally between the jobs with new
    records; if not even one record of each fits, the first jobs in the request are served.
    """
    wanted = await run_in_threadpool(_read, body)
    watched = WatchedJobs(service.statuses, service.data.job_states(client.tenant), client.tenant, wanted.jobs)
    changes, clock = service.jobs.changes, asyncio.get_running_loop().time
    begin, looks = clock(), 0
    end, batch_end = begin + wanted.wait, begin + min(wanted.batch_window, wanted.wait)
    with changes.subscription(watched.keys) as changed:
        while True:
            changed.clear()
            look = clock()
            events = await run_in_threadpool(watched.events)
            looks += 1
            batching = events.content and not events.urgent
            left = (batch_end if batching else end) - clock()
            if (events.content and not batching) or not wanted.jobs or left <= 0 or changes.closed:
                break
            if await request.is_disconnected():
                break
            pause = max(_INTERVAL, min(_PAUSE_FACTOR * (clock() - look), _MAX_PAUSE))
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(changed.wait(), left if batching else min(left, pause))
    if looks > 1:
        # Access may have been revoked while the request waited.
        await run_in_threadpool(recheck_access, request, service)
    return Response(events.content, media_type=NDJSON, headers={"Cache-Control": "no-store"})


def _read(body: bytes) -> WatchRequest:
    try:
        return WatchRequest.model_validate_json(body)
    except ValidationError as error:
        raise invalid_request(error.errors()) from None


class Events(NamedTuple):
    """The events of a reply.

    Attributes:
        content: The body of the reply; empty if there is no event.
        urgent: Whether there is more than a few new records: a changed status, a job that is unknown or has ended, as
            much log of one job as a reply holds, or more than one reply holds.
    """

    content: bytes
    urgent: bool


class WatchedJobs:
    """The jobs of a request.

    Args:
        statuses: The statuses of all jobs.
        folder: The folder with the run folders of the tenant's jobs.
        tenant: The tenant.
        cursors: The client's cursor for each job, by job id.

    Attributes:
        keys: The jobs.
    """

    def __init__(self, statuses: StatusCache, folder: Path, tenant: str, cursors: Mapping[str, WatchCursor]) -> None:
        self.keys = {JobKey(tenant, job_id): cursor for job_id, cursor in cursors.items()}
        self._statuses = statuses
        self._files = {key: f"{folder}/{key.job_id}/{RECORDS_FILE}" for key in self.keys}
        self._ended: dict[JobKey, CachedStatus] = {}
        # The size of each log without a further whole record at the last look, and whether its job had ended.
        self._nothing_new: dict[str, tuple[int, bool]] = {}

    def events(self) -> Events:
        """Look for events."""
        # The statuses before the logs: the log of a job that has ended is complete then.
        statuses = self._read_statuses()
        sizes = {key: _size(self._files[key]) for key, status in statuses.items() if not status.waiting}
        logs = [
            GrownLog(file, cursor.offset, size, ended)
            for key, cursor in self.keys.items()
            if (size := sizes.get(key, 0)) > cursor.offset
            and self._nothing_new.get(file := self._files[key]) != (size, ended := statuses[key].ended)
        ]
        records = fair_shares(logs)
        left_out = {log.file for log in logs if log.file not in records}
        urgent = bool(left_out) or any(log.ended or log.wanted >= MAX_SHARE for log in logs)
        events = []
        for key, cursor in self.keys.items():
            status = statuses.get(key)
            if not status:
                events.append(write_unknown(key.job_id))
                urgent = True
                continue
            if status.ended and self._files[key] in left_out:
                # A client treats the log that comes with a final status as complete.
                continue
            content = records.get(self._files[key], b"")
            changed = status.etag != cursor.etag
            if content or changed:
                events.append(
                    write_event(
                        key.job_id,
                        etag=status.etag,
                        offset=cursor.offset,
                        content=content,
                        size=sizes.get(key, 0),
                        status=status.document if changed else "",
                    )
                )
                urgent = urgent or changed
        if not events:
            self._nothing_new |= {log.file: (log.size, log.ended) for log in logs}
        return Events(b"".join(events), urgent)

    def _read_statuses(self) -> dict[JobKey, CachedStatus]:
        read = self._statuses.read([key for key in self.keys if key not in self._ended])
        self._ended |= {key: status for key, status in read.items() if status.ended}
        return read | self._ended


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116 - making a Path for each of thousands of files takes longer
    except FileNotFoundError:
        return 0


@dataclass(frozen=True)
class GrownLog:
    """A log with bytes that the client does not have.

    Attributes:
        file: The file with its records.
        offset: Bytes that the client has.
        size: Bytes of the file.
        ended: Whether it is complete: the bytes behind the last line feed are then a record too.
    """

    file: str
    offset: int
    size: int
    ended: bool

    @property
    def wanted(self) -> int:
        """Bytes to send if the other logs leave room for them."""
        return min(self.size - self.offset, MAX_SHARE)

    def read(self, limit: int) -> bytes:
        """Read the first of the bytes that the client does not have."""
        # The file may have been removed just now.
        with suppress(FileNotFoundError):
            file = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(file, min(limit, self.size - self.offset), self.offset)
            finally:
                os.close(file)
        return b""


@dataclass
class _Share:
    """What is sent of a log: whole records.

    Attributes:
        log: The log.
        content: What has been read of it.
        end: The end of its first record; all that was read if that has no line feed.
    """

    log: GrownLog
    content: bytes
    end: int

    @property
    def more(self) -> int:
        """Bytes to send behind the first record."""
        return max(self.log.wanted - self.end, 0)

    def records(self, more: int) -> bytes:
        """The first record, and those behind it that fit into `more` bytes."""
        limit = self.end + min(more, self.more)
        if limit > len(self.content):
            self.content = self.log.read(limit)
        # The last record of a complete log may have no line feed.
        end = limit if self.log.ended and limit == self.log.size - self.log.offset else self.end
        return self.content[: max(self.content.rfind(b"\n", 0, limit) + 1, end)]


def fair_shares(logs: Sequence[GrownLog]) -> dict[str, bytes]:
    """Divide a reply: one record of each log at least, and equal shares of the rest, so that a flood delays no other.

    Returns:
        The records by file. A log without a whole record has none; if one record of each log is too much already, the
        first logs are served and the others are left out.
    """
    probable = _equal_share([log.wanted for log in logs], MAX_REPLY)
    left = MAX_REPLY
    shares: list[_Share] = []
    records: dict[str, bytes] = {}
    for log in logs:
        share = _first_record(log, max(probable, _FIRST_READ))
        if not share:
            records[log.file] = b""
            continue
        if shares and share.end > left:
            if left < _FIRST_READ:
                break
            continue
        shares.append(share)
        left -= share.end
    equal = _equal_share([share.more for share in shares], left)
    return records | {share.log.file: share.records(equal) for share in shares}


def _first_record(log: GrownLog, probable: int) -> _Share | None:
    """The share of a log with its first record; None if that is not whole yet."""
    limit = probable
    while True:
        content = log.read(limit)
        if end := content.find(b"\n") + 1:
            return _Share(log, content, end)
        if content and log.ended and len(content) == log.size - log.offset:
            return _Share(log, content, len(content))
        if len(content) < limit or limit == _MAX_RECORD:
            return None
        limit = min(8 * limit, _MAX_RECORD)


def _equal_share(wanted: Sequence[int], total: int) -> int:
    """The equal share of all that want more than it, such that all together have `total`.

    >>> _equal_share([10, 100, 100], 90)
    40
    """
    if sum(wanted) <= total:
        return max(wanted, default=0)
    left = total
    for index, least in enumerate(sorted(wanted)):
        share = max(left, 0) // (len(wanted) - index)
        if least > share:
            return share
        left -= least
    return left
