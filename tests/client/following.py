"""Following jobs in tests."""

from __future__ import annotations

import asyncio

from airflow_training.client.follow.update import Update
from airflow_training.client.follow.watcher import Watcher


class Written:
    """Keeps the updates of a job, and lets a test wait for a line."""

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self._loop = asyncio.get_running_loop()
        self._more = asyncio.Event()

    def __call__(self, update: Update) -> None:
        self.updates.append(update)
        self._loop.call_soon_threadsafe(self._more.set)

    @property
    def lines(self) -> list[str]:
        """The lines of the job, without those of the service."""
        lines = [record.line for update in self.updates for record in update.records]
        return [line for line in lines if not line.startswith("[service]")]

    async def line(self, line: str) -> None:
        """Wait for a line."""
        while line not in self.lines:
            self._more.clear()
            await self._more.wait()


async def follow(watcher: Watcher, job_id: str, written: Written, offset: int = 0) -> None:
    """Follow a job to its end."""
    with watcher.subscribe(job_id, offset, written) as subscription:
        while not subscription.ended:
            await subscription.changed()


async def to_the_end(watcher: Watcher, job_id: str, offset: int = 0) -> list[Update]:
    """Follow a job to its end and return its updates."""
    written = Written()
    await follow(watcher, job_id, written, offset)
    return written.updates
