"""Somebody who follows a job: what is known of it already, and the news that wait to be taken."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from airflow_training.api.log import LONGEST_LINE
from airflow_training.api.status import JobStatus
from airflow_training.client.follow.log_tail import LogTail
from airflow_training.client.follow.update import LATE, News, Take
from airflow_training.client.follow.watch_reply import WatchCursor, WatchEvent

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
        latest: The last status received; the update that carries it may be queued for a while.
        ended: Whether the last news have been taken.
        last_heard: When the service last answered a question that was about this job, by the monotonic clock.
        untaken: Bytes of log that were told and wait to be taken.
        done: Whether it wants no more news.
        told_last: Whether the last news were told; they may still wait to be taken.
    """

    def __init__(self, job_id: str, offset: int, take: Take, wake: Callable[[], None]) -> None:
        self.job_id = job_id
        self.take = take
        self.tail = LogTail(offset)
        self.status: JobStatus | None = None
        self.latest: JobStatus | None = None
        self.ended = False
        self.last_heard = time.monotonic()
        self.untaken = 0
        self.done = False
        self.told_last = False
        self._wake = wake
        self._read_status: JobStatus | None = None
        self._seen = ""
        self._told: deque[News] = deque()
        self._waits_since = 0.0
        # Those that are being taken too.
        self._pieces = 0
        self._changed, self._all_taken = asyncio.Event(), asyncio.Event()
        self._error: Exception | None = None

    async def changed(self, seconds: float | None = None) -> None:
        """Wait until the status is another one, or the last news have been taken; raises what makes following end.

        Args:
            seconds: Wait no longer than this.

        Raises:
            JobLost: The service forgot the job.
            ServiceError: The service cannot be asked any more; the job may well run on.
        """
        # Not canceled when the time is up: the cancellation of a trigger by Airflow, which says by whom in its message,
        # may come in the same moment.
        loop = asyncio.get_running_loop()
        timer = loop.call_later(max(seconds, 0), self._changed.set) if seconds is not None else None
        try:
            await self._changed.wait()
        finally:
            if timer:
                timer.cancel()
        self._changed.clear()
        # What was told before an error is taken, and may be the end.
        if self._error and not self.ended and not self._pieces:
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
        if not self._told:
            self._waits_since = time.monotonic()
        self._told.extend(pieces)
        self._pieces += len(pieces)
        for news in pieces:
            if news.status != self.latest:
                self.latest = news.status
                self._changed.set()
            self.untaken += news.size
            if news.last:
                self.done = self.told_last = True

    @property
    def waits(self) -> bool:
        """Whether news wait to be taken."""
        return bool(self._told)

    def next_piece(self) -> News:
        """The next update; if it was queued for too long, all that are queued, up to the size of one log record."""
        late = time.monotonic() - self._waits_since >= LATE
        self._waits_since = time.monotonic()
        news = self._told.popleft()
        while late and self._told and news.length < LONGEST_LINE:
            more = self._told.popleft()
            self._pieces -= 1
            news = replace(more, records=[*news.records, *more.records], size=news.size + more.size)
        return replace(news, together=late)

    def taken(self, news: News) -> None:
        """Note that news have been taken."""
        if not self._pieces:
            return  # it left meanwhile
        self._pieces -= 1
        was_busy = self.busy
        self.untaken -= news.size
        if was_busy and not self.busy:
            # Nobody asked for it meanwhile: that it heard nothing says nothing of the service.
            self.last_heard = time.monotonic()
        # Where there is too much for all together, those are asked for who have taken everything.
        if (was_busy and not self.busy) or (news.size and not self.untaken):
            self._wake()
        if not self._pieces:
            self._all_taken.set()
            if self._error:
                self._changed.set()
        if news.last or (news.status is not self.status and news.status != self.status):
            self.status, self.ended = news.status, news.last
            self._changed.set()

    async def all_taken(self) -> None:
        """Wait until all news have been taken."""
        while self._pieces:
            self._all_taken.clear()
            await self._all_taken.wait()

    def fail(self, error: Exception) -> None:
        """End the following with an error, once what was told is taken."""
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
        self._pieces = self.untaken = 0
