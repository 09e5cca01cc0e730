"""Notifications of job changes within the process, so that waiting requests need not poll the database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager

from airflow_training.service.scheduling.job import JobKey


class Changes:
    """Publishes job changes, from any thread, to listeners and subscriptions.

    Attributes:
        closed: Whether nothing is published any more, because the service stops.
    """

    def __init__(self) -> None:
        self.closed = False
        self._lock = threading.Lock()
        self._listeners: list[Callable[[JobKey], None]] = []
        self._subscriptions: set[_Subscription] = set()

    def add_listener(self, listener: Callable[[JobKey], None]) -> None:
        """Call a function with each job that changes, before any subscription is woken."""
        self._listeners.append(listener)

    def publish(self, key: JobKey) -> None:
        """Report that a job has changed, or may have."""
        for listener in self._listeners:
            listener(key)
        with self._lock:
            for subscription in self._subscriptions:
                if key in subscription.keys:
                    subscription.wake()

    @contextmanager
    def subscription(self, keys: Container[JobKey]) -> Iterator[asyncio.Event]:
        """An event of the running loop that is set when one of these jobs changes, or the service stops."""
        subscription = _Subscription(keys)
        with self._lock:
            self._subscriptions.add(subscription)
        try:
            yield subscription.event
        finally:
            with self._lock:
                self._subscriptions.remove(subscription)

    def close(self) -> None:
        """Wake all subscriptions, for good."""
        self.closed = True
        with self._lock:
            for subscription in self._subscriptions:
                subscription.wake()


class _Subscription:
    def __init__(self, keys: Container[JobKey]) -> None:
        self.keys = keys
        self.event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def wake(self) -> None:
        self._loop.call_soon_threadsafe(self.event.set)
