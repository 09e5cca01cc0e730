"""`training://connection@data/…`: the storage of a training service for `ObjectStoragePath`.

The operator's returned location is such a path, so that any Airflow task can list, read and copy the model.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow_training.hooks.training import TrainingHook

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

schemes = ["training"]


def get_fs(conn_id: str | None, storage_options: dict[str, Any] | None = None) -> AbstractFileSystem:
    """Open the storage behind a connection.

    Args:
        conn_id: The connection to the training service.
        storage_options: Options of obstore's file system, such as `max_cache_size`.

    Example:
        >>> from airflow.sdk import ObjectStoragePath
        >>> model = ObjectStoragePath("training://training_default@data/jobs/census-1/model/1")
        >>> model.copy(ObjectStoragePath("s3://models/census/1"), recursive=True)  # doctest: +SKIP
    """
    return asyncio.run(_storage(TrainingHook(conn_id or TrainingHook.default_conn_name))).filesystem(
        **(storage_options or {})
    )


async def _storage(hook: TrainingHook) -> Any:
    async with hook.client() as client:
        return await client.storage()
