"""One client and one token of each service, kept for all who look at its jobs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from time import monotonic
from weakref import WeakValueDictionary

from airflow_training.client.client import TrainingClient
from airflow_training.client.retry import RetryPolicy
from airflow_training.exceptions import InvalidConnection, ServiceUnavailable
from airflow_training.hooks.training import TrainingHook
from airflow_training.plugins.visible_connections import is_training

PATIENCE = 5.0
"""Seconds that a page waits for an answer of the service."""

# Somebody looks at an empty page meanwhile: a service that refuses connections is asked for a second only.
_POLICY = RetryPolicy(budget=1.0, first=0.2, longest=0.5)
# Seconds after which a connection is read again, since it may have been edited or deleted.
_READ_AGAIN = 30.0
_MOST = 32

# An event loop does not hold what runs on it.
_lives: set[asyncio.Task[None]] = set()


@dataclass(frozen=True)
class Service:
    """A connection of Airflow, and the version of the job API spoken over it where that is not the connection's."""

    conn_id: str
    version: str | None = None


@dataclass
class _Kept:
    client: TrainingClient
    read_at: float
    given_up: asyncio.Event = field(default_factory=asyncio.Event)


class Clients:
    """The clients of one event loop."""

    def __init__(self) -> None:
        self._kept: dict[Service, _Kept] = {}
        self._reading: WeakValueDictionary[Service, asyncio.Lock] = WeakValueDictionary()

    async def get(self, service: Service) -> TrainingClient:
        """The client of a service; raises InvalidConnection, or ServiceUnavailable if the connection cannot be read."""
        # One at a time for each service: that of another one may be slow to tell its settings.
        async with self._reading.setdefault(service, asyncio.Lock()):
            kept = self._kept.pop(service, None)
            if not kept or monotonic() - kept.read_at > _READ_AGAIN:
                kept = await self._read(service, kept)
            self._kept[service] = kept
            if len(self._kept) > _MOST:
                self._kept.pop(next(iter(self._kept))).given_up.set()
            return kept.client

    def forget(self, service: Service) -> None:
        """Read the connection again when it is asked for next: its credentials are refused."""
        if kept := self._kept.get(service):
            kept.read_at = -_READ_AGAIN

    async def _read(self, service: Service, known: _Kept | None) -> _Kept:
        try:
            # In a thread: it asks Airflow's database.
            client = await asyncio.to_thread(client_of, service)
        except ServiceUnavailable:
            if not known:
                raise
            # A secrets backend that fails for a moment does not end what works.
            known.read_at = monotonic()
            return known
        except BaseException:
            if known:
                known.given_up.set()
            raise
        if known and known.client.settings == client.settings:
            known.read_at = monotonic()
            return known
        if known:
            known.given_up.set()
        kept = _Kept(client, monotonic())
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        life = asyncio.ensure_future(_live(kept, opened))
        _lives.add(life)
        life.add_done_callback(_lives.discard)
        await opened
        return kept


def client_of(service: Service) -> TrainingClient:
    """A client that waits no longer than a page does; raises InvalidConnection."""
    if not is_training(service.conn_id):
        raise InvalidConnection(
            f"The connection {service.conn_id!r} is not of the type {TrainingHook.hook_name}, so the training page"
            " tells no service its login and password.",
            code="AT-109",
        )
    settings = TrainingHook(service.conn_id).client(version=service.version, policy=_POLICY).settings
    return TrainingClient(replace(settings, timeout=min(settings.timeout, PATIENCE)), _POLICY)


async def _live(kept: _Kept, opened: asyncio.Future[None]) -> None:
    """Keep a client open: in a task, which ends with the event loop, and closes the connections then."""
    try:
        async with kept.client:
            opened.set_result(None)
            await kept.given_up.wait()
            # Who asks it just now gets an answer.
            await asyncio.sleep(PATIENCE)
    except Exception as error:  # noqa: BLE001 - whoever waits for the client learns of it
        if not opened.done():
            opened.set_exception(error)
