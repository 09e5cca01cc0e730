"""Following jobs in tests."""

from __future__ import annotations

import asyncio

from airflow_training.client.follow.update import News
from airflow_training.client.follow.watcher import Watcher


class Told:
    """Takes the news of a job, and lets a test wait for a line."""

    def __init__(self) -> None:
        self.news: list[News] = []
        self._loop = asyncio.get_running_loop()
        self._more = asyncio.Event()

    def __call__(self, news: News) -> None:
        self.news.append(news)
        self._loop.call_soon_threadsafe(self._more.set)

    @property
    def lines(self) -> list[str]:
        """What the job wrote, without what the service says."""
        lines = [record.line for news in self.news for record in news.records]
        return [line for line in lines if not line.startswith("[service]")]

    async def line(self, line: str) -> None:
        """Wait for a line."""
        while line not in self.lines:
            self._more.clear()
            await self._more.wait()


async def follow(watcher: Watcher, job_id: str, told: Told, offset: int = 0) -> None:
    """Follow a job to its end."""
    with watcher.follower(job_id, offset, told) as follower:
        while not follower.ended:
            await follower.changed()


async def to_the_end(watcher: Watcher, job_id: str, offset: int = 0) -> list[News]:
    """Follow a job to its end and return what was told."""
    told = Told()
    await follow(watcher, job_id, told, offset)
    return told.news
