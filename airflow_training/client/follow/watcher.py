"""One request at a time that brings the news of all jobs which are followed on an event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from contextvars import Context

from airflow_training.client.client import TrainingClient
from airflow_training.client.follow.delivery import Turns
from airflow_training.client.follow.polling import StatusList, poll
from airflow_training.client.follow.subscription import Follower
from airflow_training.client.follow.update import INTERVAL, News, Take
from airflow_training.client.follow.watch_reply import WatchEvent
from airflow_training.client.retry import RetryPolicy
from airflow_training.exceptions import (
    AuthenticationError,
    InvalidReply,
    RequestRejected,
    ServiceUnavailable,
    TrainingError,
)

# The most jobs that one request names: what the extension takes.
_MOST = 10_000
# Bytes of log that wait to be taken by all together: then only those who have none are asked for.
_MOST_UNTAKEN = 16 * 1024 * 1024
# Seconds that a request waits for news, and with it whoever comes meanwhile; and where somebody who is left out waits.
_WAIT = 2.0
_HURRY = 0.2
# Seconds between two requests: many changes of statuses make no storm.
_SPACING = 0.05
# Followers that are told at once: where they are a thousand, the event loop would stand still until each had its turn.
_AT_ONCE = 250
# After this a request that is not answered is given up; those who wait may have more patience.
_POLICY = RetryPolicy()
# Seconds for which a service that has told news may answer with something else before it is polled: it is upgraded.
_UPGRADE = 60.0
# The status with which a service says that it knows us and will not tell us.
_FORBIDDEN = 403

_logger = logging.getLogger(__name__)


class Watcher:
    """Looks after the jobs of one service for all who follow one. An async context manager.

    A service without the watch extension is found out by asking once; then each job is polled.

    Args:
        client: The service.
        connect: Makes a client of it once more when its credentials are refused: they may have been renewed.
        patience: Seconds that the service may be away before those who follow its jobs are told.
        room: Waits in a thread until there is room for the lines of a job.

    Attributes:
        client: The service.
    """

    def __init__(
        self,
        client: TrainingClient,
        connect: Callable[[], Awaitable[TrainingClient]],
        *,
        patience: float,
        room: Callable[[], None] = lambda: None,
    ) -> None:
        self.client = client
        self._statuses = StatusList(client, lambda: self.followed)
        self._connect = connect
        self._patience = patience
        self._clients = AsyncExitStack()
        # Those whose news came longest ago come first.
        self._followers: dict[Follower, None] = {}
        self._newcomers = asyncio.Event()
        self._turns = Turns(room)
        self._task: asyncio.Task[None] | None = None
        # What is done for one follower alone.
        self._tasks: dict[Follower, asyncio.Task[None]] = {}
        self._reading = asyncio.Lock()
        self._answered = -math.inf
        self._polls = False

    async def __aenter__(self) -> Watcher:
        await self._clients.enter_async_context(self.client)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._followers.clear()
        try:
            if self._task:
                self._task.cancel()
                await asyncio.wait({self._task})
        finally:
            await self._clients.aclose()

    @contextmanager
    def follower(self, job_id: str, offset: int, take: Take) -> Iterator[Follower]:
        """Follow a job.

        Args:
            job_id: The job.
            offset: The byte of its log to begin at.
            take: Takes the news; they wait for it, and those of other jobs go on meanwhile.
        """
        follower = Follower(job_id, offset, take, self.wake)
        self._followers[follower] = None
        try:
            if self._polls:
                self._do(follower, self._poll(follower))
            else:
                self.wake()
            yield follower
        finally:
            follower.leave()
            self._followers.pop(follower, None)
            if task := self._tasks.get(follower):
                task.cancel()

    @property
    def followed(self) -> int:
        """How many follow jobs."""
        return len(self._followers)

    def wake(self) -> None:
        """Say that somebody waits for news."""
        self._newcomers.set()
        if self._followers and not self._polls and (not self._task or self._task.done()):
            # What the one who came first logs or has in its context is no matter of the others'.
            self._task = Context().run(asyncio.ensure_future, self._watch())
            self._task.add_done_callback(self._again)

    def _again(self, task: asyncio.Task[None]) -> None:
        """Whatever ended the watching, those who follow their jobs do not notice."""
        if self._followers and task is self._task:
            self.wake()

    async def _watch(self) -> None:
        while self._followers and not self._polls:
            self._newcomers.clear()
            if not (named := self._named()):
                await self._newcomers.wait()
                continue
            try:
                await self._round(named)
            except TrainingError as error:
                await self._consider(error)
            except Exception as error:
                # One who looks after so many does not give up for a mistake of ours.
                _logger.exception("The news of %d trainings could not be read; they are asked for again.", len(named))
                await self._consider(
                    ServiceUnavailable(f"The training service could not be watched: {error!r}.", code="AT-231")
                )
            await asyncio.sleep(_SPACING)

    def _named(self) -> dict[str, Follower]:
        full = sum(follower.untaken for follower in self._followers) >= _MOST_UNTAKEN
        named: dict[str, Follower] = {}
        for follower in self._followers:
            if follower.busy or (full and follower.untaken) or len(named) == _MOST:
                continue
            # Two who follow the same job take turns.
            other = named.get(follower.job_id)
            if not other or follower.last_heard < other.last_heard:
                named[follower.job_id] = follower
        return named

    async def _round(self, named: Mapping[str, Follower]) -> None:
        cursors = {job_id: follower.cursor for job_id, follower in named.items()}
        left_out = len(named) < sum(not follower.done for follower in self._followers)
        wait = min(_HURRY if left_out else _WAIT, self.client.settings.timeout / 2)
        events = await self.client.watch(cursors, wait=wait, linger=min(wait, INTERVAL), policy=_POLICY)
        now = self._answered = time.monotonic()
        for follower in named.values():
            follower.last_heard = now
        told = [(named[event.job_id], event) for event in events if event.job_id in named]
        # Whoever ends this task: what has been taken out of a log is told.
        await asyncio.shield(self._pass_on(told))
        for follower, event in told:
            # Of those whose news do not fit into a reply, the service tells the first.
            if event.content and follower in self._followers:
                self._followers[follower] = self._followers.pop(follower)

    async def _pass_on(self, events: list[tuple[Follower, WatchEvent]]) -> None:
        async with self._reading:
            for start in range(0, len(events), _AT_ONCE):
                some = events[start : start + _AT_ONCE]
                for (follower, event), news in zip(some, await asyncio.to_thread(_read, some), strict=True):
                    if follower not in self._followers:
                        continue
                    if isinstance(news, TrainingError):
                        self._lose(follower, news)
                    elif event.known:
                        self._turns.tell(follower, news)
                    else:
                        follower.done = True
                        self._do(follower, self._ask_again(follower))

    async def _ask_again(self, follower: Follower) -> None:
        """Ask for a job that the service does not know: one that just restarted may not have read its jobs yet."""
        await self.client.status(follower.job_id)
        follower.go_on()

    async def _poll(self, follower: Follower) -> None:
        begin = follower.tail.offset
        async with aclosing(poll(self.client, self._statuses, follower.job_id, follower.tail)) as all_news:
            async for news in all_news:
                follower.last_heard = time.monotonic()
                self._turns.tell(follower, list(news.pieces(begin)))
                await follower.all_taken()
                begin = news.offset

    def _do(self, follower: Follower, work: Coroutine[None, None, None]) -> None:
        """Do something for one follower alone; an error ends its following."""

        def done(task: asyncio.Task[None]) -> None:
            if self._tasks.get(follower) is task:
                del self._tasks[follower]
            if not task.cancelled() and isinstance(error := task.exception(), Exception):
                self._lose(follower, error)

        if before := self._tasks.get(follower):
            before.cancel()
        self._tasks[follower] = Context().run(asyncio.ensure_future, work)
        self._tasks[follower].add_done_callback(done)

    def _lose(self, follower: Follower, error: Exception) -> None:
        self._followers.pop(follower, None)
        follower.fail(error)

    async def _consider(self, error: TrainingError) -> None:
        """Do what an error asks for: poll, connect anew, give up, or ask again."""
        refused = isinstance(error, RequestRejected) and error.status == _FORBIDDEN
        if isinstance(error, (RequestRejected, InvalidReply)) and not refused:
            # Somebody who is not the job API may say 404, or something else.
            self._polls = time.monotonic() - self._answered > _UPGRADE
        elif isinstance(error, AuthenticationError):
            await self._connect_anew(error)
        else:
            self._give_up(error, patience=self._patience if isinstance(error, ServiceUnavailable) else 0)
        if self._polls:
            for follower in self._followers:
                if not follower.told_last:
                    self._do(follower, self._poll(follower))
        else:
            await asyncio.sleep(INTERVAL)

    async def _connect_anew(self, error: AuthenticationError) -> None:
        try:
            client = await self._connect()
            if client.settings == self.client.settings:
                self._give_up(error)
                return
            # The client before may still be in use: it is closed in the end.
            self.client = await self._clients.enter_async_context(client)
            self._statuses = StatusList(client, lambda: self.followed)
        except TrainingError as other:
            self._give_up(other, patience=self._patience if other.retryable else 0)
        except Exception as other:  # noqa: BLE001 - whatever ails Airflow's database: the jobs are well
            unreadable = ServiceUnavailable(f"The connection could not be read again: {other}.", code="AT-232")
            self._give_up(unreadable, patience=self._patience)

    def _give_up(self, error: TrainingError, patience: float = 0) -> None:
        last = time.monotonic() - patience
        for follower in list(self._followers):
            # One that is busy was not asked for, so it heard nothing.
            if follower.last_heard <= last and not (patience and follower.busy):
                self._lose(follower, error)


def _read(events: list[tuple[Follower, WatchEvent]]) -> list[Sequence[News] | ServiceUnavailable]:
    return [_read_one(follower, event) for follower, event in events]


def _read_one(follower: Follower, event: WatchEvent) -> Sequence[News] | ServiceUnavailable:
    try:
        return follower.read(event) if event.known else ()
    except Exception as error:  # noqa: BLE001 - what is wrong with one log is no matter of the other jobs
        return ServiceUnavailable(f"The news of the job {follower.job_id} could not be read: {error!r}.", code="AT-233")
