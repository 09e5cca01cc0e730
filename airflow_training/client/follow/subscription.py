"""A subscription to a job: what is known of the job, and the updates that wait to be delivered."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from airflow_training.api.log import LONGEST_LINE, LogRecord
from airflow_training.api.status import JobStatus
from airflow_training.api.watch import WatchCursor, WatchEvent
from airflow_training.client.follow.log_tail import LogTail
from airflow_training.client.follow.update import LATE, Update, Write

# Bytes of log queued for a job, from which on no more is requested.
_MAX_QUEUED = 128 * 1024


class Subscription:
    """Follows a job. `read` and `write` are called in threads, everything else on the event loop.

    The follower waits for `changed`; its lines are written meanwhile.

    Args:
        job_id: The job.
        offset: The byte of its log to begin at.
        write: Writes its updates.
        wake: Called when the job is to be requested again.

    Attributes:
        job_id: The job.
        write: Writes its updates.
        tail: The tail of its log.
        status: The job's status in the last delivered update.
        latest: The last status received; the update that carries it may be queued for a while.
        ended: Whether the last update is delivered.
        answered_at: When the service last answered a request for this job, by the monotonic clock.
        undelivered: Bytes of log in queued updates.
        done: Whether no further updates are wanted.
        last_queued: Whether the last update was received; it may still be queued.
    """

    def __init__(self, job_id: str, offset: int, write: Write, wake: Callable[[], None]) -> None:
        self.job_id = job_id
        self.write = write
        self.tail = LogTail(offset)
        self.status: JobStatus | None = None
        self.latest: JobStatus | None = None
        self.ended = False
        self.answered_at = time.monotonic()
        self.undelivered = 0
        self.done = False
        self.last_queued = False
        self._wake = wake
        self._read_status: JobStatus | None = None
        self._etag = ""
        self._queue: deque[Update] = deque()
        self._queued_since = 0.0
        # Queued updates and those being delivered.
        self._pending = 0
        self._changed, self._all_delivered = asyncio.Event(), asyncio.Event()
        self._error: Exception | None = None

    async def changed(self, seconds: float | None = None) -> None:
        """Wait until the status changes or the last update is delivered.

        Args:
            seconds: The longest wait.

        Raises:
            JobLost: The service does not know the job any more.
            ServiceError: The service cannot be reached; the job may still run.
        """
        # No cancellation at the end of the time: Airflow may cancel the trigger at the same moment, with a message that
        # must not be lost.
        loop = asyncio.get_running_loop()
        timer = loop.call_later(max(seconds, 0), self._changed.set) if seconds is not None else None
        try:
            await self._changed.wait()
        finally:
            if timer:
                timer.cancel()
        self._changed.clear()
        # Updates received before an error are delivered first; one may be the last.
        if self._error and not self.ended and not self._pending:
            raise self._error.with_traceback(None)

    @property
    def busy(self) -> bool:
        """Whether no updates are wanted for now."""
        return self.done or self.undelivered >= _MAX_QUEUED

    @property
    def cursor(self) -> WatchCursor:
        """What is known of the job, for the next request."""
        return WatchCursor(self.tail.read_until, self._etag)

    def read(self, event: WatchEvent) -> Sequence[Update]:
        """Make updates of an event."""
        if event.status:
            self._read_status, self._etag = event.status, event.etag
        if self._read_status is None:
            return ()
        # The reply to a request made before the last event was read repeats that event's content.
        content = event.content if event.offset == self.tail.read_until else b""
        left = event.size - self.tail.read_until - len(content)
        last = self._read_status.state.ended and (left <= 0 or not event.content)
        begin = self.tail.offset
        records = self.tail.feed(content, ndjson=event.ndjson, size=event.size, more=left > 0, last=last)
        if last and event.log_error:
            records.append(LogRecord(f"The log of the job could not be read: {event.log_error}"))
        return tuple(Update(self._read_status, tuple(records), self.tail.offset, len(content), last).pieces(begin))

    def queue(self, updates: Sequence[Update]) -> None:
        """Queue updates for delivery."""
        if not self._queue:
            self._queued_since = time.monotonic()
        self._queue.extend(updates)
        self._pending += len(updates)
        for update in updates:
            if update.status != self.latest:
                self.latest = update.status
                self._changed.set()
            self.undelivered += update.size
            if update.last:
                self.done = self.last_queued = True

    @property
    def has_queued(self) -> bool:
        """Whether updates are queued."""
        return bool(self._queue)

    def next_update(self) -> Update:
        """The next update; if it was queued for too long, all that are queued, up to the size of one log record."""
        late = time.monotonic() - self._queued_since >= LATE
        self._queued_since = time.monotonic()
        update = self._queue.popleft()
        while late and self._queue and update.length < LONGEST_LINE:
            more = self._queue.popleft()
            self._pending -= 1
            update = replace(more, records=(*update.records, *more.records), size=update.size + more.size)
        return replace(update, batched=True) if late else update

    def delivered(self, update: Update) -> None:
        """Note that an update is delivered."""
        if not self._pending:
            return  # closed meanwhile
        self._pending -= 1
        was_busy = self.busy
        self.undelivered -= update.size
        if was_busy and not self.busy:
            # No request covered this job meanwhile, so the time says nothing about the service.
            self.answered_at = time.monotonic()
        # If the log of all jobs together is too much, only jobs without undelivered log are requested.
        if (was_busy and not self.busy) or (update.size and not self.undelivered):
            self._wake()
        if not self._pending:
            self._all_delivered.set()
            if self._error:
                self._changed.set()
        if update.last or (update.status is not self.status and update.status != self.status):
            self.status, self.ended = update.status, update.last
            self._changed.set()

    async def all_delivered(self) -> None:
        """Wait until all updates are delivered."""
        while self._pending:
            self._all_delivered.clear()
            await self._all_delivered.wait()

    def fail(self, error: Exception) -> None:
        """End the subscription with an error, after the delivery of the queued updates."""
        self.done = True
        self._error = error
        self._changed.set()

    def resume(self) -> None:
        """Request the job again: the service did not know it and now does."""
        self.done = False
        self._wake()

    def close(self) -> None:
        """Drop all updates."""
        self.done = True
        self._queue.clear()
        self._pending = self.undelivered = 0
