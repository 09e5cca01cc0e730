"""Somebody who follows a job: what is known of it already, and the news that wait to be taken."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from airflow_training.client.log_tail import LogTail
from airflow_training.client.news import News
from airflow_training.client.watch_event import WatchCursor, WatchEvent
from airflow_training.exceptions import TrainingError
from airflow_training.jobs.status import JobStatus

# Bytes of log that wait to be taken: one who has as much to do is not asked for.
_ENOUGH = 128 * 1024
# Seconds after which one hears that there is no news.
_SILENCE = 30.0


class Told(NamedTuple):
    """What a follower is told.

    Attributes:
        news: What became known of the job; None where it is one of the others.
        size: Bytes that the news took in the log.
        last: Whether the job has ended, and its log with it.
        unknown: Whether the service does not know the job.
        polls: Whether the service has to be asked again and again instead.
        error: Why nothing will be told any more.
    """

    news: News | None = None
    size: int = 0
    last: bool = False
    unknown: bool = False
    polls: bool = False
    error: TrainingError | None = None


class Follower:
    """Follows a job; `read` may be called in a thread, everything else on the event loop.

    Args:
        job_id: The job.
        offset: The byte of its log to begin at.
        wake: Called when it wants to be asked for again.

    Attributes:
        job_id: The job.
        tail: How far its log has been read.
        last_heard: When the service last answered a question that was about this job, by the monotonic clock.
        untaken: Bytes of log that were told and wait to be taken.
        done: Whether it wants no more news.
    """

    def __init__(self, job_id: str, offset: int, wake: Callable[[], None]) -> None:
        self.job_id = job_id
        self.tail = LogTail(offset)
        self.last_heard = self._last_told = time.monotonic()
        self._wake = wake
        self._status: JobStatus | None = None
        self._seen = ""
        self._told: deque[Told] = deque()
        self.untaken = 0
        self.done = False
        self._waits: asyncio.Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether it wants no more news for now."""
        return self.done or self.untaken >= _ENOUGH

    @property
    def cursor(self) -> WatchCursor:
        """What it knows already."""
        return WatchCursor(self.tail.read_until, self._seen)

    def read(self, event: WatchEvent) -> Told:
        """Take what the service told of the job."""
        if not event.known:
            return Told(unknown=True)
        if event.status:
            self._status, self._seen = event.status, event.seen
        # One that was asked for before the last one was read tells the same again.
        content = event.content if event.offset == self.tail.read_until else b""
        left = event.size - self.tail.read_until - len(content)
        last = self._status is not None and self._status.state.ended and (left <= 0 or not event.content)
        records = self.tail.take(content, ndjson=True, size=event.size, more=left > 0, last=last)
        if self._status is None:
            return Told()
        return Told(News(self._status, records, self.tail.offset), len(content), last)

    def tell(self, told: Told) -> None:
        """Have something taken by whoever follows the job."""
        self._told.append(told)
        self.untaken += told.size
        # Who is told of one of these does not want to hear the same before it has been seen to.
        self.done = self.done or told.last or told.unknown
        self._last_told = time.monotonic()
        if self._waits and not self._waits.done():
            self._waits.set_result(None)

    def heard(self, now: float) -> None:
        """Note that the service has answered, and break a long silence."""
        self.last_heard = now
        if self._status and now - self._last_told >= _SILENCE:
            self.tell(Told(News(self._status, [], self.tail.offset)))

    async def next(self) -> Told:
        """Wait for what is told next; raises the error where it is one."""
        while not self._told:
            self._waits = asyncio.get_running_loop().create_future()
            await self._waits
        told = self._told.popleft()
        was_busy = self.busy
        self.untaken -= told.size
        # Where there is too much for all together, those are asked for who have taken everything.
        if (was_busy and not self.busy) or (told.size and not self.untaken):
            self._wake()
        if told.error:
            raise told.error.with_traceback(None)
        return told

    def go_on(self) -> None:
        """Want news again of a job that the service did not know and now does."""
        self.done = False
        self._wake()
