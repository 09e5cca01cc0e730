"""Somebody who follows a job: what is known of it already, and the news that wait to be taken."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from airflow_training.client.log_tail import LogTail
from airflow_training.client.news import News, Take
from airflow_training.client.watch_event import WatchCursor, WatchEvent
from airflow_training.jobs.status import JobStatus

# Bytes of log that wait to be taken: one who has as much to do is not asked for.
_ENOUGH = 128 * 1024


class Follower:
    """Follows a job; `read` and `take` are called in threads, everything else on the event loop.

    Whoever follows waits for `changed`, and has its lines taken meanwhile.

    Args:
        job_id: The job.
        offset: The byte of its log to begin at.
        take: Takes the news.
        wake: Called when it wants to be asked for again.

    Attributes:
        job_id: The job.
        take: Takes the news.
        tail: How far its log has been read.
        status: Where the job stands, by the news that were taken.
        ended: Whether the last news have been taken.
        last_heard: When the service last answered a question that was about this job, by the monotonic clock.
        untaken: Bytes of log that were told and wait to be taken.
        done: Whether it wants no more news.
    """

    def __init__(self, job_id: str, offset: int, take: Take, wake: Callable[[], None]) -> None:
        self.job_id = job_id
        self.take = take
        self.tail = LogTail(offset)
        self.status: JobStatus | None = None
        self.ended = False
        self.last_heard = time.monotonic()
        self.untaken = 0
        self.done = False
        self._wake = wake
        self._read_status: JobStatus | None = None
        self._seen = ""
        self._told: deque[News] = deque()
        self._changed, self._all_taken = asyncio.Event(), asyncio.Event()
        self._error: Exception | None = None

    async def changed(self) -> None:
        """Wait until the status is another one, or the last news have been taken; raises what makes following end.

        Raises:
            JobLost: The service forgot the job.
            ServiceError: The service cannot be asked any more; the job may well run on.
        """
        await self._changed.wait()
        self._changed.clear()
        if self._error:
            raise self._error.with_traceback(None)

    @property
    def busy(self) -> bool:
        """Whether it wants no more news for now."""
        return self.done or self.untaken >= _ENOUGH

    @property
    def cursor(self) -> WatchCursor:
        """What it knows already."""
        return WatchCursor(self.tail.read_until, self._seen)

    def read(self, event: WatchEvent) -> Sequence[News]:
        """Make news of what the service told of the job."""
        if event.status:
            self._read_status, self._seen = event.status, event.seen
        if self._read_status is None:
            return ()
        # One that was asked for before the last one was read tells the same again.
        content = event.content if event.offset == self.tail.read_until else b""
        left = event.size - self.tail.read_until - len(content)
        last = self._read_status.state.ended and (left <= 0 or not event.content)
        begin = self.tail.offset
        records = self.tail.take(content, ndjson=True, size=event.size, more=left > 0, last=last)
        return tuple(News(self._read_status, records, self.tail.offset, len(content), last).pieces(begin))

    def tell(self, pieces: Sequence[News]) -> None:
        """Have news wait to be taken."""
        self._told.extend(pieces)
        for news in pieces:
            self.untaken += news.size
            self.done = self.done or news.last

    @property
    def waits(self) -> bool:
        """Whether news wait to be taken."""
        return bool(self._told)

    def next_piece(self) -> News:
        """The next news to be taken."""
        return self._told.popleft()

    def taken(self, news: News) -> None:
        """Note that news have been taken."""
        was_busy = self.busy
        self.untaken -= news.size
        # Where there is too much for all together, those are asked for who have taken everything.
        if (was_busy and not self.busy) or (news.size and not self.untaken):
            self._wake()
        if not self._told:
            self._all_taken.set()
        if news.last or (news.status is not self.status and news.status != self.status):
            self.status, self.ended = news.status, news.last
            self._changed.set()

    async def all_taken(self) -> None:
        """Wait until no news wait."""
        while self._told or self.untaken:
            self._all_taken.clear()
            await self._all_taken.wait()

    def fail(self, error: Exception) -> None:
        """End the following with an error."""
        self.done = True
        self._error = error
        self._changed.set()

    def go_on(self) -> None:
        """Want news again of a job that the service did not know and now does."""
        self.done = False
        self._wake()

    def leave(self) -> None:
        """Take nothing any more."""
        self.done = True
        self._told.clear()
