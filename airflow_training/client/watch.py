"""Following a job to its end: written once, used by the worker and by the triggerer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from airflow_training.client.news import News
from airflow_training.client.polling import poll
from airflow_training.client.watcher import Watcher


async def follow(watcher: Watcher, job_id: str, offset: int = 0) -> AsyncGenerator[News, None]:
    """Follow a job to its end; the last news carry its final status and the last lines of its log.

    Args:
        watcher: Looks after the jobs of the service.
        job_id: The job.
        offset: The byte of the log to begin at.

    Raises:
        JobLost: The service forgot the job.
        ServiceError: The service cannot be asked any more; the job may well run on.
    """
    with watcher.follower(job_id, offset) as follower:
        while not (told := await follower.next()).polls:
            if told.unknown:
                # A service that just restarted may not have read its jobs yet: it is asked once more.
                await watcher.client.status(job_id)
                follower.go_on()
            elif told.news:
                yield told.news
                if told.last:
                    return
        async with aclosing(poll(watcher.client, watcher.statuses, job_id, follower.tail)) as all_news:
            async for news in all_news:
                yield news
