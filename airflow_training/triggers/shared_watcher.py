"""The watchers of a triggerer: all triggers of an event loop that use the same connection share one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import greenback
from anyio import move_on_after

from airflow_training.client.client import TrainingClient
from airflow_training.client.follow.watcher import Watcher
from airflow_training.client.retry import FOLLOW
from airflow_training.following.log_backpressure import wait_for_room
from airflow_training.hooks.training import TrainingHook
from airflow_training.per_loop import PerLoop
from airflow_training.shielded import run_to_completion

# Seconds to wait for a connection before its existing watcher is used: reading it from a failing secrets backend is
# retried for a quarter of an hour, which must not keep a trigger from following or canceling its job.
_READ_TIMEOUT = 5.0


@dataclass(frozen=True)
class _Connection:
    """An Airflow connection, and the version of the job API that is used over it."""

    training_conn_id: str
    version: str | None

    async def connect(self) -> TrainingClient:
        # As Airflow does for the task of a trigger: masking the secrets of a connection calls the supervisor
        # synchronously.
        await greenback.ensure_portal()
        return await TrainingHook(self.training_conn_id).aclient(version=self.version, policy=FOLLOW)


@dataclass
class _Shared:
    watcher: Watcher
    users: int = 0


@dataclass
class _Watchers:
    """The watchers of one event loop."""

    shared: dict[_Connection, _Shared] = field(default_factory=dict)
    reading: dict[_Connection, asyncio.Task[TrainingClient]] = field(default_factory=dict)
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self, connection: _Connection) -> TrainingClient:
        """Read a connection, with one request to Airflow for all triggers that need it at the same time."""
        reading = self.reading.get(connection)
        if not reading:
            reading = self.reading[connection] = asyncio.ensure_future(connection.connect())

            def done(task: asyncio.Task[TrainingClient]) -> None:
                del self.reading[connection]
                # Retrieve the error: no trigger may be waiting any more.
                _ = task.cancelled() or task.exception()

            reading.add_done_callback(done)
        return await asyncio.shield(reading)

    async def take(self, connection: _Connection) -> _Shared:
        """Share a watcher, unless the connection has been edited since it was made."""
        while True:
            client = await self._edited(connection)
            async with self.opening:
                shared = self.shared.get(connection)
                if not shared and not client:
                    continue
                if client and (not shared or shared.watcher.client.settings != client.settings):
                    watcher = Watcher(client, connection.connect, patience=FOLLOW.budget, wait_for_room=wait_for_room)
                    shared = _Shared(await watcher.__aenter__())
                    self.shared[connection] = shared
                assert shared is not None, "there is a client for a new watcher"  # noqa: S101 - by construction
                shared.users += 1
                return shared

    async def _edited(self, connection: _Connection) -> TrainingClient | None:
        """Read a connection; None if that takes long and there is a watcher."""
        while True:
            with move_on_after(_READ_TIMEOUT):
                return await self.read(connection)
            if connection in self.shared:
                return None

    async def release(self, connection: _Connection, shared: _Shared) -> None:
        shared.users -= 1
        if not shared.users:
            if self.shared.get(connection) is shared:
                del self.shared[connection]
            await run_to_completion(shared.watcher.__aexit__())


_watchers = PerLoop(_Watchers)


@asynccontextmanager
async def shared_watcher(training_conn_id: str, version: str | None) -> AsyncIterator[Watcher]:
    """Share the watcher of a connection with its other users on this event loop.

    Args:
        training_conn_id: The connection.
        version: The version of the job API, if it is not the connection's.

    Raises:
        InvalidConnection: The connection is incomplete or invalid.
        ServiceUnavailable: Airflow cannot read it at the moment.
    """
    connection = _Connection(training_conn_id, version)
    watchers = _watchers.get()
    shared = await watchers.take(connection)
    try:
        yield shared.watcher
    finally:
        await watchers.release(connection, shared)
