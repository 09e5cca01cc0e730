"""Changes of jobs, told within the process: who waits for one needs not ask the database again and again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager

from airflow_training.service.runners.runner import JobKey


class Changes:
    """Where changes of jobs are announced, from any thread, and heard.

    Attributes:
        closed: Whether nothing is announced any more: the service stops.
    """

    def __init__(self) -> None:
        self.closed = False
        self._lock = threading.Lock()
        self._listeners: list[Callable[[JobKey], None]] = []
        self._waiting: set[_Waiting] = set()

    def listen(self, listener: Callable[[JobKey], None]) -> None:
        """Have a function called with each job that changed, before anybody who waits is woken."""
        self._listeners.append(listener)

    def announce(self, key: JobKey) -> None:
        """Tell that a job has changed, or may have."""
        for listener in self._listeners:
            listener(key)
        with self._lock:
            for waiting in self._waiting:
                if key in waiting.keys:
                    waiting.wake()

    @contextmanager
    def heard(self, keys: Container[JobKey]) -> Iterator[asyncio.Event]:
        """Have an event set in the running loop whenever one of some jobs changes, and when the service stops."""
        waiting = _Waiting(keys)
        with self._lock:
            self._waiting.add(waiting)
        try:
            yield waiting.event
        finally:
            with self._lock:
                self._waiting.remove(waiting)

    def close(self) -> None:
        """Wake everybody, for good."""
        self.closed = True
        with self._lock:
            for waiting in self._waiting:
                waiting.wake()


class _Waiting:
    def __init__(self, keys: Container[JobKey]) -> None:
        self.keys = keys
        self.event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def wake(self) -> None:
        self._loop.call_soon_threadsafe(self.event.set)
