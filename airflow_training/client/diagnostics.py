"""Checks of a training service: everything that a training needs, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator

from airflow_training.client.auth import TokenSource
from airflow_training.client.client import TrainingClient
from airflow_training.client.retry import CHECK
from airflow_training.exceptions import TrainingError


def check(connect: Callable[[], TrainingClient]) -> Iterator[tuple[bool, str]]:
    """Check connection, token, job API and storage, up to the first that fails.

    Args:
        connect: Makes a client of the service; may raise InvalidConnection.

    Yields:
        Whether the step works, and its name with the details.
    """
    name = ""
    try:
        for name, step in _STEPS.items():
            yield True, f"{name}: {asyncio.run(step(connect()))}"
    except TrainingError as error:
        yield False, f"{name}: {error}"


async def _connection(client: TrainingClient) -> str:
    return client.settings.base_url


async def _token(client: TrainingClient) -> str:
    await TokenSource(client.settings, CHECK).atoken()
    return f"{client.settings.token_server} issues tokens to {client.settings.client_id!r}"


async def _job_api(client: TrainingClient) -> str:
    async with client:
        jobs = await client.jobs()
    return f"{client.settings.api_url} lists {len(jobs)} job{'' if len(jobs) == 1 else 's'}"


async def _storage(client: TrainingClient) -> str:
    async with client:
        storage = await client.storage(timeout=20)
        # A folder of no job: the list of all jobs' files is long.
        await storage.keys("jobs/none")
    return f"{storage.endpoint} accepts the credentials"


_STEPS: dict[str, Callable[[TrainingClient], Coroutine[None, None, str]]] = {
    "Connection": _connection,
    "Token": _token,
    "Job API": _job_api,
    "Storage": _storage,
}
