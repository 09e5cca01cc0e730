"""Work of a task that can be interrupted: Airflow ends a task from a signal handler, in the midst of anything."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Interruptible:
    """Runs coroutines, one at a time, each of which can be cancelled from a signal handler.

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
        self.interrupted = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end.

        Raises:
            asyncio.CancelledError: It was interrupted, and has cleaned up after itself. An interruption that came
                before it began interrupts it at its first wait.
        """
        return asyncio.run(self._known(work))

    async def _known(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("asyncio.run runs a task")
        self._running = asyncio.get_running_loop(), task
        if self.interrupted:
            task.cancel()
        try:
            return await work
        finally:
            self._running = None

    def interrupt(self) -> None:
        """Cancel what runs, if anything does. It does nothing else: a signal handler may not wait for anything."""
        self.interrupted = True
        if self._running:
            loop, task = self._running
            loop.call_soon_threadsafe(task.cancel)
