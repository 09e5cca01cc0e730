"""Following many jobs of one service: one long-poll request at a time covers all jobs followed on an event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from contextvars import Context
from itertools import starmap

from airflow_training.api.watch import MAX_JOBS, WatchEvent
from airflow_training.client.client import TrainingClient
from airflow_training.client.follow.delivery import Delivery
from airflow_training.client.follow.polling import StatusList, poll
from airflow_training.client.follow.subscription import Subscription
from airflow_training.client.follow.update import INTERVAL, Update, Write
from airflow_training.client.retry import REQUEST
from airflow_training.exceptions import (
    AuthenticationError,
    InvalidReply,
    RequestRejected,
    ServiceUnavailable,
    TrainingError,
)

# Undelivered bytes of log of all jobs together, from which on only jobs without any are requested.
_MAX_UNDELIVERED = 16 * 1024 * 1024
# Seconds that a request waits for events, and with it new subscriptions; and if some jobs had to be left out.
_WAIT = 2.0
_SHORT_WAIT = 0.2
# Seconds between two requests: many status changes make no storm.
_SPACING = 0.05
# Events read per call of a thread: with a thousand at once the event loop would stand still.
_EVENTS_PER_CALL = 250
# Seconds for which a service that has answered a watch may reply with something else, as during an upgrade, before its
# jobs are polled.
_UPGRADE = 60.0
_FORBIDDEN = 403

_logger = logging.getLogger(__name__)


class Watcher:
    """Watches the followed jobs of one service. An async context manager.

    If the first request shows that the service has no watch extension, each job is polled.

    Args:
        client: The service.
        connect: Makes a new client when the credentials are refused: they may have been renewed.
        patience: Seconds that the service may be unavailable before the subscriptions fail.
        wait_for_room: Blocks, in a thread, until there is room for lines of a job.

    Attributes:
        client: The service.
    """

    def __init__(
        self,
        client: TrainingClient,
        connect: Callable[[], Awaitable[TrainingClient]],
        *,
        patience: float,
        wait_for_room: Callable[[], None] = lambda: None,
    ) -> None:
        self.client = client
        self._statuses = StatusList(client, lambda: self.followed)
        self._connect = connect
        self._patience = patience
        self._clients = AsyncExitStack()
        # Ordered by their last content, the oldest first.
        self._subscriptions: dict[Subscription, None] = {}
        self._new_work = asyncio.Event()
        self._delivery = Delivery(wait_for_room)
        self._task: asyncio.Task[None] | None = None
        # Tasks of single subscriptions.
        self._tasks: dict[Subscription, asyncio.Task[None]] = {}
        self._reading = asyncio.Lock()
        self._answered_at = -math.inf
        self._polls = False

    async def __aenter__(self) -> Watcher:
        await self._clients.enter_async_context(self.client)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._subscriptions.clear()
        try:
            if self._task:
                self._task.cancel()
                await asyncio.wait({self._task})
        finally:
            await self._clients.aclose()

    @contextmanager
    def subscribe(self, job_id: str, offset: int, write: Write) -> Iterator[Subscription]:
        """Follow a job.

        Args:
            job_id: The job.
            offset: The byte of its log to begin at.
            write: Writes the job's updates; it may be slow, which does not delay other jobs.
        """
        subscription = Subscription(job_id, offset, write, self.wake)
        self._subscriptions[subscription] = None
        try:
            if self._polls:
                self._start(subscription, self._poll(subscription))
            else:
                self.wake()
            yield subscription
        finally:
            subscription.close()
            self._subscriptions.pop(subscription, None)
            if task := self._tasks.get(subscription):
                task.cancel()

    @property
    def followed(self) -> int:
        """The number of subscriptions."""
        return len(self._subscriptions)

    def wake(self) -> None:
        """Include a new or resumed subscription in the next request."""
        self._new_work.set()
        if self._subscriptions and not self._polls and (not self._task or self._task.done()):
            # The task must not inherit the context of the first subscription.
            self._task = Context().run(asyncio.ensure_future, self._watch())
            self._task.add_done_callback(self._restart)

    def _restart(self, task: asyncio.Task[None]) -> None:
        """Watch again, whatever ended the task."""
        if self._subscriptions and task is self._task:
            self.wake()

    async def _watch(self) -> None:
        while self._subscriptions and not self._polls:
            self._new_work.clear()
            if not (included := self._included()):
                await self._new_work.wait()
                continue
            try:
                await self._request(included)
            except TrainingError as error:
                await self._handle(error)
            except Exception as error:
                # A bug must not end so many subscriptions at once.
                _logger.exception(
                    "The events of %d trainings could not be read; the request will be retried.", len(included)
                )
                await self._handle(
                    ServiceUnavailable(f"The training service could not be watched: {error!r}.", code="AT-231")
                )
            await asyncio.sleep(_SPACING)

    def _included(self) -> dict[str, Subscription]:
        """The subscriptions of the next request, by job."""
        full = sum(subscription.undelivered for subscription in self._subscriptions) >= _MAX_UNDELIVERED
        included: dict[str, Subscription] = {}
        for subscription in self._subscriptions:
            if subscription.busy or (full and subscription.undelivered) or len(included) == MAX_JOBS:
                continue
            # Two subscriptions to the same job take turns.
            other = included.get(subscription.job_id)
            if not other or subscription.answered_at < other.answered_at:
                included[subscription.job_id] = subscription
        return included

    async def _request(self, included: Mapping[str, Subscription]) -> None:
        cursors = {job_id: subscription.cursor for job_id, subscription in included.items()}
        left_out = len(included) < sum(not subscription.done for subscription in self._subscriptions)
        wait = min(_SHORT_WAIT if left_out else _WAIT, self.client.settings.timeout / 2)
        events = await self.client.watch(cursors, wait=wait, batch_window=min(wait, INTERVAL), policy=REQUEST)
        now = self._answered_at = time.monotonic()
        for subscription in included.values():
            subscription.answered_at = now
        received = [(included[event.job_id], event) for event in events if event.job_id in included]
        # A cancellation of this task must not drop lines that are already taken out of a log.
        await asyncio.shield(self._dispatch(received))
        for subscription, event in received:
            # If not all fit into a reply, the service serves the first ones.
            if event.content and subscription in self._subscriptions:
                self._subscriptions[subscription] = self._subscriptions.pop(subscription)

    async def _dispatch(self, events: Sequence[tuple[Subscription, WatchEvent]]) -> None:
        """Queue the updates of events for delivery."""
        async with self._reading:
            for start in range(0, len(events), _EVENTS_PER_CALL):
                some = events[start : start + _EVENTS_PER_CALL]
                read = await asyncio.to_thread(list, starmap(_read, some))
                for (subscription, event), updates in zip(some, read, strict=True):
                    if subscription not in self._subscriptions:
                        continue
                    if isinstance(updates, TrainingError):
                        self._fail(subscription, updates)
                    elif event.known:
                        self._delivery.queue(subscription, updates)
                    else:
                        subscription.done = True
                        self._start(subscription, self._ask_again(subscription))

    async def _ask_again(self, subscription: Subscription) -> None:
        """Request an unknown job once more: a service that just restarted may not have read its jobs yet."""
        await self.client.status(subscription.job_id)
        subscription.resume()

    async def _poll(self, subscription: Subscription) -> None:
        async with aclosing(poll(self.client, self._statuses, subscription.job_id, subscription.tail)) as events:
            async for event in events:
                subscription.answered_at = time.monotonic()
                await self._dispatch([(subscription, event)])
                await subscription.all_delivered()

    def _start(self, subscription: Subscription, work: Coroutine[None, None, None]) -> None:
        """Start the task of a single subscription; an error ends the subscription."""

        def done(task: asyncio.Task[None]) -> None:
            if self._tasks.get(subscription) is task:
                del self._tasks[subscription]
            if not task.cancelled() and isinstance(error := task.exception(), Exception):
                self._fail(subscription, error)

        if before := self._tasks.get(subscription):
            before.cancel()
        self._tasks[subscription] = Context().run(asyncio.ensure_future, work)
        self._tasks[subscription].add_done_callback(done)

    def _fail(self, subscription: Subscription, error: Exception) -> None:
        self._subscriptions.pop(subscription, None)
        subscription.fail(error)

    async def _handle(self, error: TrainingError) -> None:
        """Poll, reconnect, fail subscriptions or repeat the request, as the error requires."""
        refused = isinstance(error, RequestRejected) and error.status == _FORBIDDEN
        if isinstance(error, (RequestRejected, InvalidReply)) and not refused:
            # A gateway without a service may reply 404 too, or something else.
            self._polls = time.monotonic() - self._answered_at > _UPGRADE
        elif isinstance(error, AuthenticationError):
            await self._reconnect(error)
        else:
            self._fail_stale(error, patience=self._patience if isinstance(error, ServiceUnavailable) else 0)
        if self._polls:
            for subscription in self._subscriptions:
                if not subscription.last_queued:
                    self._start(subscription, self._poll(subscription))
        else:
            await asyncio.sleep(INTERVAL)

    async def _reconnect(self, error: AuthenticationError) -> None:
        try:
            client = await self._connect()
            if client.settings == self.client.settings:
                self._fail_stale(error)
                return
            # The previous client may still be in use: it is closed at the end.
            self.client = await self._clients.enter_async_context(client)
            self._statuses = StatusList(client, lambda: self.followed)
        except TrainingError as other:
            self._fail_stale(other, patience=self._patience if other.retryable else 0)
        except Exception as failure:  # noqa: BLE001 - a failure of Airflow's database does not affect the jobs
            unreadable = ServiceUnavailable(f"The connection could not be read again: {failure}.", code="AT-232")
            self._fail_stale(unreadable, patience=self._patience)

    def _fail_stale(self, error: TrainingError, patience: float = 0) -> None:
        """Fail the subscriptions without an answer for so many seconds."""
        last = time.monotonic() - patience
        for subscription in list(self._subscriptions):
            # The requests did not cover a busy one.
            if subscription.answered_at <= last and not (patience and subscription.busy):
                self._fail(subscription, error)


def _read(subscription: Subscription, event: WatchEvent) -> Sequence[Update] | ServiceUnavailable:
    try:
        return subscription.read(event) if event.known else ()
    except Exception as error:  # noqa: BLE001 - a fault in one log does not affect the other jobs
        return ServiceUnavailable(
            f"The events of the job {subscription.job_id} could not be read: {error!r}.", code="AT-233"
        )
