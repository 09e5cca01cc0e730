"""Whether a training service works: what a training needs of it, tried one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator

from airflow_training.client.auth import TokenSource
from airflow_training.client.client import TrainingClient
from airflow_training.client.retry import RetryPolicy
from airflow_training.exceptions import TrainingError

QUICK = RetryPolicy(budget=5)
"""When a request of a check is made again: somebody waits for the answer."""


def check(connect: Callable[[], TrainingClient]) -> Iterator[tuple[bool, str]]:
    """Try what a training needs, one after another, up to the first that fails.

    Args:
        connect: Makes a client of the service; may raise InvalidConnection.

    Yields:
        Whether it works, and what was found, by its name.
    """
    name = ""
    try:
        for name, step in _STEPS.items():
            yield True, f"{name}: {asyncio.run(step(connect()))}"
    except TrainingError as error:
        yield False, f"{name}: {error}"


async def _connection(client: TrainingClient) -> str:
    return f"leads to {client.settings.base_url}"


async def _token(client: TrainingClient) -> str:
    await TokenSource(client.settings, QUICK).atoken()
    return f"{client.settings.token_server} gives one to {client.settings.client_id!r}"


async def _job_api(client: TrainingClient) -> str:
    async with client:
        jobs = await client.jobs()
    return f"{client.settings.api_url} knows {len(jobs)} job{'' if len(jobs) == 1 else 's'}"


async def _storage(client: TrainingClient) -> str:
    async with client:
        storage = await client.storage(timeout=20)
        # A folder that nobody has: one with all jobs is long.
        await storage.keys("jobs/none")
    return f"{storage.endpoint} lets us in"


_STEPS: dict[str, Callable[[TrainingClient], Coroutine[None, None, str]]] = {
    "Connection": _connection,
    "Token": _token,
    "Job API": _job_api,
    "Storage": _storage,
}
