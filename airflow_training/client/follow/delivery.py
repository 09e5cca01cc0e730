"""Delivery of updates: in one thread, the jobs by turns.

Writing a line into a task log takes Airflow up to half a millisecond, so it happens in a thread and does not block the
event loop. One thread serves all jobs, since a thread for each costs more than the lines; it serves them by turns, so
that a job which floods its log delays no other.

If Airflow reads more slowly than lines are written, turns take longer. Once the updates of a job have been queued for
`LATE` seconds, all its queued lines are batched into one log record. The longer the queue, the larger the batches, so
the delay stabilizes instead of growing without limit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context

from airflow_training.client.follow.subscription import Subscription
from airflow_training.client.follow.update import Update

# Lines of all jobs per call of the thread; the way there and back takes as long as a line or two.
_MAX_LINES_PER_CALL = 250


class Delivery:
    """The queue of all jobs with updates to deliver.

    Args:
        wait_for_room: Blocks until there is room for lines, called in the thread before each update with lines.
    """

    def __init__(self, wait_for_room: Callable[[], None] = lambda: None) -> None:
        self._wait_for_room = wait_for_room
        self._waiting: deque[Subscription] = deque()
        self._task: asyncio.Task[None] | None = None

    def queue(self, subscription: Subscription, updates: Sequence[Update]) -> None:
        """Queue updates of a job."""
        if not subscription.has_queued:
            self._waiting.append(subscription)
        subscription.queue(updates)
        if not self._task or self._task.done():
            # The task must not inherit the context of the first subscription.
            self._task = Context().run(asyncio.ensure_future, self._work())

    async def _work(self) -> None:
        while batch := self._next():
            try:
                errors = await asyncio.to_thread(_deliver, batch, self._wait_for_room)
            except Exception as error:  # noqa: BLE001 - no thread can be started, for instance
                errors = [error] * len(batch)
            for (subscription, update), failure in zip(batch, errors, strict=True):
                if failure:
                    subscription.close()
                    subscription.fail(failure)
                else:
                    subscription.delivered(update)

    def _next(self) -> list[tuple[Subscription, Update]]:
        batch: list[tuple[Subscription, Update]] = []
        lines = 0
        while self._waiting and lines < _MAX_LINES_PER_CALL:
            subscription = self._waiting.popleft()
            if not subscription.has_queued:
                continue  # it was closed
            update = subscription.next_update()
            batch.append((subscription, update))
            lines += max(len(update.records), 1)
            if subscription.has_queued:
                self._waiting.append(subscription)
        return batch


def _deliver(batch: Sequence[tuple[Subscription, Update]], wait_for_room: Callable[[], None]) -> list[Exception | None]:
    failed: dict[Subscription, Exception] = {}
    errors = []
    for subscription, update in batch:
        # Nothing is written behind a gap: following is resumed before it.
        if subscription not in failed:
            try:
                if update.records:
                    wait_for_room()
                subscription.write(update)
            except Exception as error:  # noqa: BLE001 - raised by `Subscription.changed`
                failed[subscription] = error
        errors.append(failed.get(subscription))
    return errors
