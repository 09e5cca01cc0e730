"""Coroutines of a task that a signal handler can cancel: Airflow ends a task from one, at any moment."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class Interruptible:
    """Runs coroutines, one at a time, each of which a signal handler can cancel.

    Attributes:
        interrupted: Whether `interrupt` was called.

    Example:
        >>> work = Interruptible()
        >>> work.run(asyncio.sleep(0, "done"))
        'done'
        >>> work.interrupt()
        >>> work.run(asyncio.sleep(600))
        Traceback (most recent call last):
        ...
        asyncio.exceptions.CancelledError
    """

    def __init__(self) -> None:
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._alarm_handler: Callable[[int, FrameType | None], Any] | None = None
        self._alarmed = False
        self.interrupted = False

    @contextmanager
    def between_requests(self) -> Iterator[None]:
        """Make the alarm of an `execution_timeout` interrupt only what is run here, now or next.

        Airflow raises its error wherever the task is at that moment. During a request to its supervisor, as most calls
        of Airflow's API in a task are, the response stays unread and is taken for that of the next request. An alarm
        after the last run has no effect: the task ends in any case.
        """
        handler = signal.getsignal(signal.SIGALRM)
        if not callable(handler) or threading.current_thread() is not threading.main_thread():
            yield
            return

        def alarm(_signal: int, _frame: object) -> None:
            self._alarmed = True
            self._cancel()

        self._alarm_handler = handler
        signal.signal(signal.SIGALRM, alarm)
        try:
            yield
        finally:
            signal.signal(signal.SIGALRM, handler)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end.

        Raises:
            asyncio.CancelledError: It was interrupted and has cleaned up. An interruption before its start interrupts
                it at its first wait.
            AirflowTaskTimeout: The task's `execution_timeout` passed, which interrupts it in the same way.
        """
        try:
            return asyncio.run(self._cancelable(work))
        finally:
            if self._alarmed and self._alarm_handler:
                self._alarmed = False
                self._alarm_handler(signal.SIGALRM, None)

    async def _cancelable(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("asyncio.run runs a task")
        self._running = asyncio.get_running_loop(), task
        if self.interrupted or self._alarmed:
            task.cancel()
        try:
            return await work
        finally:
            self._running = None

    def interrupt(self) -> None:
        """Cancel the running coroutine, if any, without waiting: a signal handler may not wait."""
        self.interrupted = True
        self._cancel()

    def _cancel(self) -> None:
        if self._running:
            loop, task = self._running
            loop.call_soon_threadsafe(task.cancel)
