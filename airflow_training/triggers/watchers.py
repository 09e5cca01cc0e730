"""The watchers of a triggerer: all triggers of an event loop that use one connection share one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import greenback

from airflow_training.background import finish
from airflow_training.client.training import TrainingClient
from airflow_training.client.watcher import Watcher
from airflow_training.hooks.training import TrainingHook
from airflow_training.per_loop import PerLoop
from airflow_training.reporting import PATIENCE
from airflow_training.triggers.garbage import garbage


@dataclass(frozen=True)
class _Connection:
    """An Airflow connection, and the version of the job API that is spoken over it."""

    training_conn_id: str
    version: str | None

    async def connect(self) -> TrainingClient:
        # As Airflow does for the task of a trigger: what masks the secrets of a connection asks the supervisor
        # synchronously.
        await greenback.ensure_portal()
        return await TrainingHook(self.training_conn_id).aclient(version=self.version, policy=PATIENCE)


@dataclass
class _Shared:
    watcher: Watcher
    users: int = 0


@dataclass
class _Watchers:
    """Those of one event loop."""

    shared: dict[_Connection, _Shared] = field(default_factory=dict)
    reading: dict[_Connection, asyncio.Task[TrainingClient]] = field(default_factory=dict)
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self, connection: _Connection) -> TrainingClient:
        """Read a connection, for all who ask at the same time by one question to Airflow."""
        reading = self.reading.get(connection)
        if not reading:
            reading = self.reading[connection] = asyncio.ensure_future(connection.connect())
            reading.add_done_callback(lambda _: self.reading.pop(connection))
        return await asyncio.shield(reading)

    async def take(self, connection: _Connection) -> _Shared:
        """Join those who share a watcher, unless the connection has been edited since it was made."""
        client = await self.read(connection)
        async with self.opening:
            shared = self.shared.get(connection)
            if not shared or shared.watcher.client.settings != client.settings:
                shared = _Shared(await Watcher(client, connection.connect, patience=PATIENCE.budget).__aenter__())
                self.shared[connection] = shared
            shared.users += 1
            garbage().begin()
            return shared

    async def give_back(self, connection: _Connection, shared: _Shared) -> None:
        shared.users -= 1
        garbage().end()
        if not shared.users:
            if self.shared.get(connection) is shared:
                del self.shared[connection]
            await finish(shared.watcher.__aexit__())


_watchers = PerLoop(_Watchers)


@asynccontextmanager
async def shared_watcher(training_conn_id: str, version: str | None) -> AsyncIterator[Watcher]:
    """Share the watcher of a connection with all who use it on this event loop.

    Args:
        training_conn_id: The connection.
        version: The job API's version, where it is not the connection's.

    Raises:
        InvalidConnection: The connection is not there, or lacks something.
    """
    connection = _Connection(training_conn_id, version)
    watchers = _watchers.get()
    shared = await watchers.take(connection)
    try:
        yield shared.watcher
    finally:
        await watchers.give_back(connection, shared)
