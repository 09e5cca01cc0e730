"""`training://connection@data/…`: the storage of a training service for `ObjectStoragePath`.

The location that the operator returns is such a path, so that any Airflow task can list, read and copy the model.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

import fsspec
import obstore
from obstore.fsspec import FsspecStore
from upath.implementations.cloud import CloudPath

from airflow_training.client import run_sync
from airflow_training.client.client import TrainingClient
from airflow_training.client.storage import JobStorage
from airflow_training.hooks.training import TrainingHook

if TYPE_CHECKING:
    from obstore.store import S3Store

schemes = ["training"]


def get_fs(conn_id: str | None, storage_options: dict[str, Any] | None = None) -> TrainingFileSystem:
    """Open the storage behind a connection; called by Airflow.

    Args:
        conn_id: The connection to the training service.
        storage_options: Options of obstore's file system, such as `max_cache_size`.
    """
    return TrainingFileSystem(conn_id, **(storage_options or {}))


class TrainingFileSystem(FsspecStore):
    """The storage of a training service as a file system of fsspec; its paths begin with the bucket.

    Args:
        conn_id: The connection to the training service.
        options: Options of obstore's file system.

    Example:
        >>> from airflow.sdk import ObjectStoragePath  # doctest: +SKIP
        >>> model = ObjectStoragePath("training://training_default@data/jobs/census-1/model/1")  # doctest: +SKIP
        >>> model.copy(ObjectStoragePath("s3://models/census/1"), recursive=True)  # doctest: +SKIP
    """

    protocol = "training"
    # The keys of a storage may change with each start of the service.
    cachable = False

    def __init__(self, conn_id: str | None = None, **options: Any) -> None:
        hook = TrainingHook(conn_id or TrainingHook.default_conn_name)
        self._storage = run_sync.run(_storage(hook.client()))
        super().__init__("s3", **options)  # obstore warns about unknown protocols
        self.protocol = "training"

    def _construct_store(self, bucket: str) -> S3Store:
        return self._storage.bucket(bucket)

    def _open(self, path: str, mode: str = "rb", *args: Any, **options: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, *args, **options)
        # Download the whole file to disk: rclone 1.75 answers a range request with the status 200 instead of 206, which
        # obstore takes for an error.
        with ExitStack() as on_error:
            copy = on_error.enter_context(TemporaryFile())
            self._fetch(path, copy)
            copy.seek(0)
            on_error.pop_all()
        return copy

    async def _get_file(self, rpath: str, lpath: str, **_options: Any) -> None:
        # obstore takes the folders of a recursive copy for files, and keeps each file in memory.
        if await self._isdir(rpath):
            await asyncio.to_thread(os.makedirs, lpath, exist_ok=True)
        else:
            await asyncio.to_thread(self._download, rpath, Path(lpath))

    def _download(self, path: str, to: Path) -> None:
        to.parent.mkdir(parents=True, exist_ok=True)
        with to.open("wb") as file:
            self._fetch(path, file)

    def _fetch(self, path: str, file: IO[bytes]) -> None:
        bucket, key = self._split_path(path)
        for chunk in obstore.get(self._construct_store(bucket), key).stream():
            file.write(chunk)


class TrainingPath(CloudPath):
    """The path class of universal-pathlib, and so of `ObjectStoragePath`, for `training://` locations."""


# universal-pathlib loads this module for the scheme, and then looks up the file system in this registry.
fsspec.register_implementation(TrainingFileSystem.protocol, TrainingFileSystem, clobber=True)


async def _storage(client: TrainingClient) -> JobStorage:
    async with client:
        return await client.storage()
